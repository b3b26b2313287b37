package Ajp;

# One AJP 1.3 request, for what a Tomcat does over AJP and nothing else: no body, no attributes.
#   my $r = Ajp::request($port, 'GET', '/test/count', { Cookie => '...' });
# The answer looks like Tomcat::request's.

use strict;
use warnings;
use IO::Socket::INET ();

my %method = (OPTIONS => 1, GET => 2, HEAD => 3, POST => 4, PUT => 5, DELETE => 6, TRACE => 7);
my @response_header = (undef, 'content-type', 'content-language', 'content-length', 'date', 'last-modified', 'location',
    'set-cookie', 'set-cookie2', 'servlet-engine', 'status', 'www-authenticate');

sub _string { pack 'n/a* x', $_[0] }

sub request {
    my ($port, $method, $uri, $headers) = @_;
    my ($path, $query) = split /\?/, $uri, 2;
    my %header = (host => '127.0.0.1', %{ $headers || {} });
    my $message = pack('CC', 2, $method{$method}) . _string('HTTP/1.1') . _string($path) . _string('192.0.2.7')
        . _string('client') . _string('127.0.0.1') . pack('nCn', 80, 0, scalar keys %header);
    $message .= _string($_) . _string($header{$_}) for sort keys %header;
    $message .= pack('C', 5) . _string($query) if defined $query;
    $message .= pack 'C', 0xff;

    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp', Timeout => 30)
        or die "connect: $@\n";
    local $SIG{ALRM} = sub { die "no answer in time\n" };
    my $before = alarm 30;
    my %r = (headers => {}, body => '');
    eval {
        $socket->autoflush(1);
        print $socket pack('nn/a*', 0x1234, $message) or die "send: $!\n";
        while (1) {
            my ($magic, $length) = unpack 'a2n', _read($socket, 4);
            die "not AJP\n" unless $magic eq 'AB';
            my $packet = _read($socket, $length);
            my $code = unpack 'C', $packet;
            if ($code == 4) {
                my $n;
                (undef, $r{status}, $r{reason}, $n, $packet) = unpack 'C n n/a* x n a*', $packet;
                for (1 .. $n) {
                    my ($name, $value);
                    if (unpack('C', $packet) == 0xa0) {
                        ($name, $value, $packet) = unpack 'x C n/a* x a*', $packet;
                        $name = $response_header[$name];
                    } else {
                        ($name, $value, $packet) = unpack 'n/a* x n/a* x a*', $packet;
                    }
                    push @{ $r{headers}{ lc $name } }, $value;
                }
            } elsif ($code == 3) {
                $r{body} .= unpack 'x n/a*', $packet;
            } elsif ($code == 5) {
                last;
            } else {
                die "unexpected AJP packet $code\n";
            }
        }
        1;
    } or do { alarm $before; die $@ };
    alarm $before;
    return \%r;
}

sub _read {
    my ($socket, $length) = @_;
    my $data = '';
    while (length $data < $length) {
        sysread $socket, $data, $length - length $data, length $data or die "cut short\n";
    }
    return $data;
}

1;
