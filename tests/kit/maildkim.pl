# Mail::DKIM on a message from standard input. Usage: maildkim.pl verify|sign|arc KEYS|PEM [domain selector]
# verify: "algorithm result" for each signature; arc: the chain's result; sign: the field. Keys: lines of "name text".
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Mail::DKIM::Signer;
use Mail::DKIM::ARC::Verifier;

my ($what, $file, $domain, $selector) = @ARGV;
my $message = do { local $/; <STDIN> };

if ($what eq "sign") {
    my $signer = Mail::DKIM::Signer->new(Algorithm => "rsa-sha256", Method => "relaxed/simple",
        Domain => $domain, Selector => $selector, KeyFile => $file);
    $signer->PRINT($message);
    $signer->CLOSE;
    print $signer->signature->as_string, "\r\n";
    exit;
}

my %records;
open(my $keys, "<", $file) or die $!;
while (<$keys>) { chomp; my ($name, $text) = split / /, $_, 2; $records{lc $name} = $text; }

package Record { sub type { "TXT" } sub char_str_list { ($_[0]{text}) } sub txtdata { $_[0]{text} } }
{
    no warnings "redefine";
    *Mail::DKIM::DNS::query = sub {
        my ($name) = @_;
        return defined $records{lc $name} ? (bless { text => $records{lc $name} }, "Record") : ();
    };
}
my $verifier = $what eq "arc" ? Mail::DKIM::ARC::Verifier->new : Mail::DKIM::Verifier->new;
$verifier->PRINT($message);
$verifier->CLOSE;
if ($what eq "arc") { print $verifier->result_detail, "\n"; }
else { print $_->algorithm, " ", $_->result, "\n" for $verifier->signatures; }
