"""What the server side says of its own: octets where the words never change, Replies where the log hears them too."""

from __future__ import annotations

from posthof_pod.replies import Reply

# The replies everyone gets, as octets.
SENDER_OK = b"250 2.1.0 Sender accepted\r\n"
RECIPIENT_OK = b"250 2.1.5 Recipient accepted\r\n"
SEND_DATA = b"354 End data with <CR><LF>.<CR><LF>\r\n"
RESET = b"250 2.0.0 Reset\r\n"
NOOP = b"250 2.0.0 OK\r\n"
BYE = b"221 2.0.0 Bye\r\n"
READY_FOR_TLS = b"220 2.0.0 Ready to start TLS\r\n"
VRFY = b"252 2.1.5 Cannot verify, but will take the message and try\r\n"
HELP = Reply(
    214, "2.0.0", "Commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS QUIT\nSee RFC 5321"
).encode()

AUTH_FIRST = Reply(530, "5.7.0", "Authentication required")
TLS_FIRST = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
AUTHENTICATED = Reply(235, "2.7.0", "Authentication succeeded")
WRONG = Reply(535, "5.7.8", "Authentication credentials invalid")
IS_AUTHENTICATED = Reply(503, "5.5.1", "You have authenticated already")
NO_MECHANISM = Reply(504, "5.5.4", "Authentication mechanism not offered")
CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
TOO_LONG_RESPONSE = Reply(500, "5.5.6", "Authentication response too long")
TOO_MANY_GUESSES = Reply(421, "4.7.0", "Too many failed authentications")
EHLO_FIRST = Reply(503, "5.5.1", "Send EHLO first")
REQUIRETLS_NEEDS_TLS = Reply(530, "5.7.10", "REQUIRETLS needs a session under TLS")
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")
RCPT_FIRST = Reply(503, "5.5.1", "Send RCPT first")
NESTED_MAIL = Reply(503, "5.5.1", "A transaction is open: finish it or send RSET")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
AFTER_BDAT = Reply(503, "5.5.1", "The transaction has begun with BDAT")
BINARY_NEEDS_BDAT = Reply(503, "5.5.1", "BODY=BINARYMIME is sent with BDAT")
UNKNOWN = Reply(500, "5.5.1", "Command not recognised")
NOT_OFFERED = Reply(502, "5.5.1", "Command not offered")
BARE_LF = Reply(500, "5.5.2", "A command line ends with CRLF")
LINE_TOO_LONG = Reply(500, "5.5.6", "Command line too long")
NO_ARGUMENT = Reply(501, "5.5.4", "The command takes no argument")
NEEDS_ARGUMENT = Reply(501, "5.5.4", "The command needs an argument")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
IN_TLS = Reply(503, "5.5.1", "TLS is active already")
NO_XCLIENT = Reply(550, "5.7.0", "XCLIENT is not for you")
IN_TRANSACTION = Reply(503, "5.5.1", "Not during a transaction")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands in one session")
TOO_MANY_MESSAGES = Reply(421, "4.7.0", "Too many messages in one session")
NOT_SMTP = Reply(421, "4.7.0", "This is an SMTP server")
LOST_CHUNK = Reply(421, "4.7.0", "Where the chunk ends is not known")
INJECTED = Reply(421, "4.7.0", "Nothing may follow STARTTLS before the handshake")
ABSURD = Reply(421, "4.3.4", "The message is far beyond the limit")


def octets(reply: Reply) -> bytes:
    """A reply for the wire. A CR in a gate's text must not become a line of its own."""
    code, status, text = reply
    if "\r" in text:
        reply = Reply(code, status, text.replace("\r", " "))
    elif status and "\n" not in text:
        return f"{code} {status} {text}\r\n".encode("utf-8", "replace")
    return reply.encode()
