"""One session with a host: open it, send messages over it, close it.

Promises
- `send` gives every recipient an Outcome and raises for nothing a peer does. Before the dot (or BDAT LAST) was
  written a lost session means DEFERRED, after it UNCERTAIN; only the peer's reply makes RELAYED.
- The dot is written only after `permit` said yes; else the session is dropped without it.
- With `following`, the MAIL, RCPT and DATA of the next message go right behind the dot (RFC 2920 3.1), to PIPELINING
  SMTP peers; that next message must then be the next `send`. Nothing of it is promised until then.
  Where a whole message goes in one write anyway (BDAT) nothing is gained by that, and `following` is ignored.
- On the hot path: one write a phase, one future a phase, no timer, no task (design: hotpath.md). A plain letter
  (letter.py) takes the short way, `_express`; at the first thing that is not usual it goes on by the long one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from posthof_crds.engine import Timeouts
from posthof_pod.deliver.auth import Credentials
from posthof_pod.deliver.letter import AT_ONCE, PIECE, BodyReader, Letter, Outgoing, pieces, plan, prepare
from posthof_pod.deliver.opening import ENHANCED, Fault, Opening, Unreachable, readable
from posthof_pod.deliver.tls import ClientPair, ClientTLS
from posthof_pod.deliver.wire import Wire
from posthof_pod.model import Destination, DestinationKind, Host, Outcome, Reason, Status
from posthof_pod.smtp.client import (
    Ask,
    Stuffer,
    Transaction,
    content_pieces,
    envelope_commands,
    plain_commands,
    relayed,
)
from posthof_pod.smtp.extensions import Extensions
from posthof_pod.smtp.replyline import Broken, PeerReply

__all__ = ["BodyReader", "Connection", "Fault", "Outgoing", "Unreachable", "readable"]

HELD = 1048576  # bytes: of a content up to this the dots are doubled in one go
CHUNK = 262144  # bytes of a BDAT chunk that is not the last


def _check_reset(reply: PeerReply) -> None:
    if reply.code // 100 != 2:
        raise Broken(f"RSET got {reply}")


class Connection:
    """A session. Made by `open`; used by one task at a time."""

    __slots__ = (
        "_begun",
        "_is_dotted",
        "_lmtp",
        "_messages",
        "_needs_reset",
        "_timeouts",
        "_wire",
        "extensions",
        "faults",
        "host",
        "peer",
        "tls",
        "tls_failure",
    )

    def __init__(
        self,
        wire: Wire,
        host: Host,
        extensions: Extensions,
        timeouts: Timeouts,
        *,
        is_lmtp: bool,
        tls: str = "",
        tls_failure: str = "",
        faults: tuple[Fault, ...] = (),
    ) -> None:
        self.faults = faults  # TLS failures on the way to this session
        self.extensions = extensions
        self.host = host
        self.peer = readable(host)
        self.tls = tls  # "TLSv1.3 TLS_AES_256_GCM_SHA384 verified", "" for plain text
        self.tls_failure = tls_failure  # why the session has less TLS than it was meant to have
        self._wire = wire
        self._timeouts = timeouts
        self._lmtp = is_lmtp
        self._begun: Letter | None = None  # its MAIL stands behind the last message's dot
        self._needs_reset = False  # before the next MAIL
        self._is_dotted = False  # the end of the running transaction's content was written
        self._messages = 0

    @classmethod
    async def open(
        cls,
        host: Host,
        destination: Destination,
        *,
        hostname: str,
        timeouts: Timeouts,
        tls: ClientTLS | None = None,
        auth: Credentials | None = None,
        local_address: str = "",
        pair: ClientPair | None = None,
    ) -> Connection:
        """Connect, greet, encrypt by the destination's level, log in. Raises Unreachable.

        `hostname` is for EHLO where the destination's egress names none. `local_address`: the source address, "" for
        the egress address of the host's family. `pair`: the certificate we show.
        """
        opening = Opening(
            host,
            destination,
            hostname=hostname,
            timeouts=timeouts,
            tls=tls or ClientTLS(),
            auth=auth,
            local_address=local_address,
            pair=pair,
        )
        opened = await opening.run()
        return cls(
            opened.wire,
            host,
            opened.extensions,
            timeouts,
            is_lmtp=destination.kind is DestinationKind.LMTP,
            tls=opened.tls,
            tls_failure=opened.tls_failure,
            faults=opened.faults,
        )

    @property
    def source(self) -> str:
        """Our own address of this session, "" for a path."""
        place = self._wire.transport.get_extra_info("sockname")
        return str(place[0]) if isinstance(place, tuple) else ""

    @property
    def messages(self) -> int:
        """Transactions begun on this session."""
        return self._messages

    @property
    def is_usable(self) -> bool:
        """The session may take another message: it is open, in step, and below the peer's MAILMAX."""
        most = self.extensions.mail_max
        return not self._wire.is_over and not (most and self._messages >= most and self._begun is None)

    def on_close(self, call: Callable[[], None] | None) -> None:
        """Call this once when the connection is gone: an idle peer that closes is noticed at once."""
        self._wire.on_close = call

    async def quit(self) -> None:
        """QUIT. Returns when the connection has gone, as the peer counts it until then: QUIT_PATIENCE at most."""
        wire = self._wire
        wire.quit()
        if not wire.is_closed:
            gone = asyncio.Event()
            wire.on_close = gone.set
            await gone.wait()

    def abort(self) -> None:
        """Drop the connection as it stands."""
        self._wire.give_up(Reason.SHUTDOWN, "the session was given up here")

    async def command(self, line: bytes) -> PeerReply:
        """One command, given without its CRLF, and its reply: for a callout, which sends no message.

        Raises Unreachable where no reply comes; the session is then of no use.
        """
        if b"\r" in line or b"\n" in line:
            raise ValueError("a command is one line")
        try:
            reply = await self._ask(Ask(line[:4].decode("ascii", "replace"), line + b"\r\n"))
        except BaseException:
            self.abort()
            raise
        if reply is None:
            reason, text = self._wire.failure or (Reason.PEER_CLOSED, "the host is closing the session")
            raise Unreachable(reason, self.peer, text)
        return reply

    async def _prepare(self, mail: Outgoing) -> Letter:
        letter = plan(mail, self.extensions, self.peer, is_lmtp=self._lmtp)
        if not letter.is_ready and letter.left and not self._wire.is_over:
            await prepare(letter, self.extensions, self.peer)
        return letter

    # --- sending

    async def send(self, mail: Outgoing, following: Outgoing | None = None) -> list[Outcome]:
        """One Outcome for each of mail.recipients, in their order.

        Raises what `permit` or the reader raise: then, as when it is cancelled, the connection is dropped.
        """
        try:
            letter = self._take_begun(mail) or await self._prepare(mail)
            if letter.is_plain and (letter.is_behind or not self._needs_reset):
                await self._express(letter, following)
            while letter.left or letter.transaction is not None:
                if letter.transaction is None and not self.is_usable and not self._wire.is_over:
                    self._postpone(letter)
                else:
                    await self._transact(letter, following)
        except BaseException:
            self.abort()
            raise
        outcomes = letter.outcomes
        if len(outcomes) > 1:
            place = {index: n for n, index in enumerate(mail.recipients)}
            outcomes.sort(key=lambda outcome: place[outcome.recipient])
        return outcomes

    def _take_begun(self, mail: Outgoing) -> Letter | None:
        letter, self._begun = self._begun, None
        if letter is None or letter.mail is mail:
            return letter
        self._wire.give_up(Reason.INTERNAL, "another message was to follow in this session")
        return None

    def _postpone(self, letter: Letter) -> None:
        """The peer's MAILMAX is reached before all of the letter's transactions."""
        text = f"the host takes at most {self.extensions.mail_max} transactions in a session"
        for recipients in letter.left:
            for n in recipients:
                letter.outcomes.append(Outcome(n, Status.DEFERRED, Reason.SITE_LIMIT, 0, "4.5.0", text, self.peer))
        letter.left = []

    async def _transact(self, letter: Letter, following: Outgoing | None) -> None:
        """One transaction of the letter, from MAIL (if it is not written yet) to the last verdict."""
        self._is_dotted = False
        try:
            if letter.transaction is None and self._may_go_at_once(letter):
                await self._all_at_once(letter)
            elif await self._envelope(letter):
                await self._content(letter, following)
        except Broken as error:
            self._wire.give_up(Reason.PEER_BROKEN, f"the host lost step: {error}")
        self._settle(letter)

    def _settle(self, letter: Letter) -> None:
        """Whoever has no verdict gets the session's; the transaction's outcomes become the letter's."""
        transaction, letter.transaction = letter.transaction, None
        if transaction is None:
            transaction = self._new_transaction(letter)
        if None in transaction.outcomes:
            self._fail(transaction)
        again: list[int] = []
        if transaction.later and self._begun is None and self.is_usable and transaction.is_taken:
            again = transaction.later
            letter.left.append(tuple(again))
        letter.outcomes += [o for o in transaction.outcomes if o is not None and o.recipient not in again]
        if transaction.goodbye is not None:
            self._wire.is_over = True

    def _fail(self, transaction: Transaction) -> None:
        wire = self._wire
        reason, text = wire.failure or (Reason.PEER_BROKEN, "the host gave no verdict")
        enhanced = ENHANCED.get(reason, "4.3.0")
        if self._is_dotted:
            if wire.goodbye is not None and wire.failure is None:
                reason, text = Reason.PEER_CLOSED, str(wire.goodbye)
            text = f"no reply to the whole message, it may have arrived: {text}"
            transaction.fail(Status.UNCERTAIN, reason, enhanced, text)
        elif wire.goodbye is not None:
            transaction.refuse(Reason.PEER_CLOSED, wire.goodbye)
        else:
            if not wire.is_over:
                wire.give_up(reason, text)
            transaction.fail(Status.DEFERRED, reason, enhanced, text)

    # --- the short way

    async def _express(self, letter: Letter, following: Outgoing | None) -> None:
        """A whole transaction of a plain letter, as `_transact` makes it, for as long as every answer is a yes.

        What it does not end is left as `_transact` would: `letter.left` or `letter.transaction` says so.
        """
        wire, timeouts = self._wire, self._timeouts
        inbox = wire.inbox
        if not letter.is_behind:
            if wire.is_over or not self.extensions.pipelining:
                return
            wire.say(self._plain_commands(letter), 3)
        if len(inbox) < 3 and not wire.is_over:
            await wire.arrival(3, "MAIL, RCPT and DATA", timeouts.command, timeouts.data)
        if (
            len(inbox) != 3
            or wire.is_over
            or not (inbox[0].code < 300 > inbox[1].code and 300 <= inbox[2].code < 400)
        ):
            letter.transaction = self._new_transaction(letter, is_behind=letter.is_behind)
            return
        inbox.clear()
        letter.left.clear()
        self._is_dotted = False
        answer = letter.mail.permit()
        if answer is not True and not await self._heed(answer):
            self._judge(letter)
            return
        text = letter.text
        assert isinstance(text, bytes)
        content = content_pieces(letter.mail.trace, text)
        behind = self._begin(letter, following)
        self._is_dotted = True
        wire.say_pieces((*content, behind) if behind else content, 1)
        await wire.arrival(1, "the whole message", timeouts.dot)
        if inbox and inbox[0].code < 300:
            reply = inbox.pop(0)
            letter.outcomes.append(relayed(letter.mail.recipients[0], reply, self.peer, dsn=self.extensions.dsn))
            return
        self._judge(letter)

    def _judge(self, letter: Letter) -> None:
        """The end of a plain letter whose recipient was accepted and whose content was not taken."""
        transaction = letter.transaction = Transaction(letter.mail.recipients, self.peer, dsn=self.extensions.dsn)
        transaction.mail_taken = True
        transaction.accepted.append(0)
        replies = self._wire.inbox[:1]
        del self._wire.inbox[:1]
        try:
            self._read_final(transaction, replies)
        except Broken as error:
            self._wire.give_up(Reason.PEER_BROKEN, f"the host lost step: {error}")
        self._settle(letter)

    def _plain_commands(self, letter: Letter) -> bytes:
        """MAIL, RCPT and DATA of a plain letter, one write."""
        self._messages += 1
        mail = letter.mail
        return plain_commands(
            mail.envelope, mail.recipients[0], self.extensions, letter.size, letter.carriage.parameter
        )

    # --- the envelope

    def _new_transaction(self, letter: Letter, *, is_behind: bool = False) -> Transaction:
        recipients = letter.left.pop(0)
        return Transaction(recipients, self.peer, dsn=self.extensions.dsn, is_behind=is_behind)

    def _commands(self, letter: Letter, *, is_behind: bool = False) -> list[bytes]:
        """Begin the letter's next transaction: RSET where one is due, MAIL, the RCPTs."""
        transaction = letter.transaction = self._new_transaction(letter, is_behind=is_behind)
        commands = envelope_commands(
            letter.mail.envelope,
            transaction.recipients,
            self.extensions,
            size=letter.size,
            parameter=letter.carriage.parameter,
            smtputf8=letter.smtputf8,
        )
        self._messages += 1
        letter.has_reset = self._needs_reset
        if self._needs_reset:
            self._needs_reset = False
            commands.insert(0, b"RSET\r\n")
        return commands

    async def _envelope(self, letter: Letter) -> bool:
        """MAIL and RCPTs, and DATA: True where the content may follow. Raises Broken."""
        wire = self._wire
        if letter.transaction is None:
            if wire.is_over:
                return False
            if not self.extensions.pipelining:
                return await self._envelope_one_by_one(letter)
            commands = self._commands(letter)
            if not letter.carriage.by_chunks:
                commands.append(b"DATA\r\n")
            wire.say(b"".join(commands), len(commands))
        transaction = letter.transaction
        assert transaction is not None
        count = 1 + len(transaction.recipients)
        awaited = count + letter.has_reset + (not letter.carriage.by_chunks)
        last = 0.0 if letter.carriage.by_chunks else self._timeouts.data
        replies = await wire.replies(awaited, "MAIL, RCPT and DATA", self._timeouts.command, last)
        if letter.has_reset and replies:
            _check_reset(replies.pop(0))
        transaction.read_envelope(replies[:count])
        return await self._is_ready(letter, transaction, replies[count:])

    async def _is_ready(self, letter: Letter, transaction: Transaction, data: list[PeerReply]) -> bool:
        """What the replies to the envelope and to a pipelined DATA mean for the content."""
        if letter.carriage.by_chunks:
            if not transaction.accepted:
                self._needs_reset = transaction.mail_taken
            return bool(transaction.accepted) and not self._wire.is_over
        if not data or not (may := transaction.read_data(data[0])):
            self._needs_reset = transaction.mail_taken
            return False
        if not transaction.accepted:
            await self._end_empty()
            return False
        return may and not self._wire.is_over

    async def _end_empty(self) -> None:
        """The peer wants a content for nobody: RFC 2920 3.1 has it get a dot."""
        if self._lmtp:
            raise Broken("DATA got 354 without a recipient")
        if not self._wire.is_over:
            self._wire.say(b".\r\n", 1)
            await self._wire.replies(1, "the dot of no message", self._timeouts.dot)

    async def _envelope_one_by_one(self, letter: Letter) -> bool:
        replies: list[PeerReply] = []
        commands = self._commands(letter)
        transaction = letter.transaction
        assert transaction is not None
        if letter.has_reset:
            reset = await self._ask(Ask("RSET", commands.pop(0)))
            if reset is None:
                return False
            _check_reset(reset)
        for command in commands:
            reply = await self._ask(Ask(command[:4].decode(), command))
            if reply is None:
                break
            replies.append(reply)
            if reply.code >= 400 and len(replies) == 1:
                break
        transaction.read_envelope(replies)
        if letter.carriage.by_chunks or not transaction.accepted or self._wire.is_over:
            return await self._is_ready(letter, transaction, [])
        data = await self._ask(Ask("DATA", b"DATA\r\n"), self._timeouts.data)
        return await self._is_ready(letter, transaction, [] if data is None else [data])

    async def _ask(self, ask: Ask, patience: float = 0.0) -> PeerReply | None:
        """Say one thing, have one reply; None where the wire is over."""
        if self._wire.is_over:
            return None
        if ask.command:
            self._wire.say(ask.command, 1)
        replies = await self._wire.replies(1, ask.step, patience or self._timeouts.command)
        return replies[0] if replies else None

    # --- the content

    def _may_go_at_once(self, letter: Letter) -> bool:
        """The envelope and the content fit one write: nothing is at stake if all recipients are refused."""
        return (
            letter.carriage.by_chunks
            and self.extensions.pipelining
            and not self._lmtp
            and isinstance(letter.text, bytes)
            and letter.size <= AT_ONCE
            and not self._wire.is_over
        )

    async def _all_at_once(self, letter: Letter) -> None:
        """MAIL, RCPT, BDAT LAST and the content in one write (RFC 3030 section 4). Raises Broken."""
        if not await self._is_permitted(letter.mail):
            return
        body = letter.text
        assert isinstance(body, bytes)
        commands = self._commands(letter)
        transaction = letter.transaction
        assert transaction is not None
        owed = len(commands) + 1
        commands.append(b"BDAT %d LAST\r\n" % letter.size)
        self._is_dotted = True
        self._wire.say_pieces((b"".join(commands), letter.mail.trace, body), owed)
        replies = await self._wire.replies(owed, "MAIL, RCPT and BDAT", self._timeouts.command, self._timeouts.dot)
        if letter.has_reset and replies:
            _check_reset(replies.pop(0))
        count = 1 + len(transaction.recipients)
        transaction.read_envelope(replies[:count])
        self._read_final(transaction, replies[count:])

    async def _content(self, letter: Letter, following: Outgoing | None) -> None:
        """The content, the dot, the verdict. Raises Broken."""
        by_chunks = letter.carriage.by_chunks
        if not isinstance(letter.text, bytes) or letter.size > AT_ONCE:
            await (self._stream_chunks(letter, following) if by_chunks else self._stream_lines(letter, following))
            return
        if not await self._is_permitted(letter.mail):
            return
        pieces: tuple[bytes, ...]
        if by_chunks:
            pieces = (b"BDAT %d LAST\r\n" % letter.size, letter.mail.trace, letter.text)
        else:
            pieces = content_pieces(letter.mail.trace, letter.text)
        await self._finish(letter, following, pieces, 0)

    async def _finish(
        self, letter: Letter, following: Outgoing | None, pieces: tuple[bytes, ...], chunks: int
    ) -> None:
        """Write the last pieces, the dot among them, and have the verdict. `chunks`: BDATs still unanswered."""
        transaction = letter.transaction
        assert transaction is not None
        verdicts = len(transaction.accepted) if self._lmtp else 1
        behind = self._begin(letter, following)
        self._is_dotted = True
        self._wire.say_pieces((*pieces, behind) if behind else pieces, verdicts)
        replies = await self._wire.replies(chunks + verdicts, "the whole message", self._timeouts.dot)
        if chunks:
            refusal = next((reply for reply in replies[:chunks] if reply.code >= 400), None)
            replies = replies[chunks:]
            if refusal is not None and (not replies or replies[0].code >= 400):
                transaction.refuse(Reason.DATA_REFUSED, refusal)  # what the last chunk got is only "bad sequence"
                self._needs_reset = self._begun is None
                return
        self._read_final(transaction, replies)

    def _read_final(self, transaction: Transaction, replies: list[PeerReply]) -> None:
        if not replies:
            return
        if replies[-1].code >= 400 and self._begun is None:
            self._needs_reset = True  # harmless after a dot, required after a failed BDAT (RFC 3030 section 2)
        if transaction.accepted:
            transaction.read_final(replies, is_lmtp=self._lmtp)

    async def _is_permitted(self, mail: Outgoing) -> bool:
        """The spool's word that this message is still ours, and the peer still there. False: no dot."""
        return await self._heed(mail.permit())

    async def _heed(self, answer: bool | Awaitable[bool]) -> bool:
        """What the spool said, or will say soon."""
        if not isinstance(answer, bool):
            answer = await answer
        if not answer:
            text = "the spool did not confirm in time that the message is still this worker's"
            self._wire.give_up(Reason.NOT_PERMITTED, text)
        return answer and not self._wire.is_over

    async def _stream_lines(self, letter: Letter, following: Outgoing | None) -> None:
        """DATA, in pieces as fast as the peer reads them; the dot apart."""
        wire = self._wire
        wire.listening = True
        if isinstance(letter.text, bytes) and letter.size <= HELD:
            end = await self._say_held(letter.mail.trace, letter.text)
        else:
            end = await self._say_read(letter)
        if not (wire.is_over or wire.is_refused) and await self._is_permitted(letter.mail) and not wire.is_refused:
            wire.listening = False
            await self._finish(letter, following, (end,), 0)
            return
        wire.listening = False
        self._cut_short(letter)

    async def _say_held(self, trace: bytes, text: bytes) -> bytes:
        """Write a content that is held, uncopied where no line begins with a dot. Returns what ends it."""
        wire = self._wire
        trace, text, end = content_pieces(trace, text)
        whole = memoryview(text)
        wire.say_pieces((trace, whole[:PIECE]), 0)
        await wire.drain(self._timeouts.block)
        for start in range(PIECE, len(text), PIECE):
            if wire.is_over or wire.is_refused:
                break
            wire.say(whole[start : start + PIECE], 0)
            await wire.drain(self._timeouts.block)
        return end

    async def _say_read(self, letter: Letter) -> bytes:
        """Write a content as it is read. Returns what ends it."""
        wire = self._wire
        stuffer = Stuffer()
        async with aclosing(pieces(letter)) as parts:
            async for piece in parts:
                wire.say(stuffer.stuff(piece), 0)
                await wire.drain(self._timeouts.block)
                if wire.is_over or wire.is_refused:
                    break
        return stuffer.end

    def _cut_short(self, letter: Letter) -> None:
        """The content did not end. If the peer refused it that is the verdict; without a dot the session is lost."""
        refusal = next((reply for reply in self._wire.inbox if reply.code >= 400), None)
        if refusal is not None and letter.transaction is not None:
            letter.transaction.refuse(Reason.DATA_REFUSED, refusal)
            self._wire.give_up(Reason.PEER_CLOSED, f"the host refused the content before its end: {refusal}")

    async def _stream_chunks(self, letter: Letter, following: Outgoing | None) -> None:
        """BDAT, a chunk at a time; the last one apart. Without PIPELINING each waits for its reply."""
        wire = self._wire
        held: list[bytes] = []
        size = chunks = 0
        async with aclosing(pieces(letter)) as parts:
            async for piece in parts:
                if size + len(piece) > CHUNK and size:
                    chunks += 1
                    await self._chunk((b"BDAT %d\r\n" % size, *held), chunks)
                    held, size = [], 0
                    if wire.is_over or wire.is_refused:
                        break
                held.append(piece)
                size += len(piece)
        if wire.is_refused:
            await self._hear_out(letter, chunks)
        elif not wire.is_over and await self._is_permitted(letter.mail):
            await self._finish(letter, following, (b"BDAT %d LAST\r\n" % size, *held), chunks)

    async def _chunk(self, parts: tuple[bytes, ...], number: int) -> None:
        """Write a chunk that is not the last one, the `number`-th (from 1) of its content."""
        wire = self._wire
        wire.say_pieces(parts, 1)
        await wire.drain(self._timeouts.block)
        if not self.extensions.pipelining:
            await wire.arrive(number, "BDAT", self._timeouts.data)

    async def _hear_out(self, letter: Letter, chunks: int) -> None:
        """A chunk got a no: have the other replies too, then the session can go on with an RSET."""
        replies = await self._wire.replies(chunks, "BDAT", self._timeouts.data)
        refusal = next((reply for reply in replies if reply.code >= 400), None)
        if refusal is not None and letter.transaction is not None:
            letter.transaction.refuse(Reason.DATA_REFUSED, refusal)
        self._needs_reset = True

    # --- the message behind

    def _begin(self, letter: Letter, following: Outgoing | None) -> bytes:
        """The commands of the next message, to be written behind this one's content; b"" where it must wait."""
        offer = self.extensions
        if following is None or self._lmtp or not offer.pipelining or not self.is_usable:
            return b""
        transaction = letter.transaction
        if letter.left or (transaction is not None and transaction.later):
            return b""
        behind = plan(following, offer, self.peer, is_lmtp=False)
        if behind.is_plain and not letter.carriage.by_chunks and not self._needs_reset:
            behind.is_behind = True
            self._begun = behind
            self._wire.owed += 3
            return self._plain_commands(behind)
        if not behind.is_ready or len(behind.left) != 1:
            return b""
        if letter.carriage.by_chunks:
            self._needs_reset = True  # were this BDAT to fail, only RSET would bring the session back into step
        commands = self._commands(behind, is_behind=True)
        if not behind.carriage.by_chunks:
            commands.append(b"DATA\r\n")
        self._begun = behind
        self._wire.owed += len(commands)
        return b"".join(commands)
