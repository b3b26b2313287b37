# WebSockets and server-sent events: what is open passes as it is, for as long as its member is well; it ends with its
# member, killed or hung, and the client that comes again with its cookie finds its session at the new member.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use Time::HiRes qw(sleep time);
use Site;

plan tests => 3 * 17 + 2 * 12;

sub n_of { ($_[0] // '') =~ /\bmember=tomcat(\d+)/ ? $1 : 0 }
sub count_in { ($_[0] // '') =~ /\bcount=(\d+)/ ? $1 : -1 }

# ---- a client ---------------------------------------------------------------------

# more bytes into $c->{buf}; 0 at the end of the connection, undef when nothing came in time
sub more {
    my ($c, $seconds) = @_;
    my $in = '';
    vec($in, fileno $c->{sock}, 1) = 1;
    return undef unless select $in, undef, undef, $seconds // 20;
    return sysread($c->{sock}, $c->{buf}, 65536, length $c->{buf}) || 0;
}

sub open_stream {
    my ($site, $path, $cookie, @head) = @_;
    my $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $site->{port}, Proto => 'tcp') or die "connect: $!";
    my $c = { sock => $sock, buf => '', head => '' };
    syswrite $sock, join '', map { "$_\r\n" } "GET $path HTTP/1.1", 'Host: 127.0.0.1', "Cookie: $cookie", @head, '';
    until ($c->{buf} =~ /\r\n\r\n/) { more($c) or return $c }
    ($c->{head}, $c->{buf}) = split /\r\n\r\n/, $c->{buf}, 2;
    return $c;
}

sub open_socket {
    my ($site, $cookie) = @_;
    my $key = encode_base64(join('', map { chr rand 256 } 1 .. 16), '');
    return open_stream($site, '/echo', $cookie, 'Connection: Upgrade', 'Upgrade: websocket', "Sec-WebSocket-Key: $key",
        'Sec-WebSocket-Version: 13');
}

# one text frame, masked as a client must
sub say_it {
    my ($c, $text) = @_;
    my $len = length $text;
    my $mask = join '', map { chr rand 256 } 1 .. 4;
    my $frame = "\x81" . ($len < 126 ? chr(128 | $len) : $len < 65536 ? "\xfe" . pack('n', $len) : "\xff" . pack('NN', 0, $len))
        . $mask . ($text ^ substr $mask x ($len / 4 + 1), 0, $len);
    local $SIG{PIPE} = 'IGNORE';
    my $off = 0;
    while ($off < length $frame) { my $n = syswrite $c->{sock}, $frame, 65536, $off or return 0; $off += $n }
    return 1;
}

# the next message; undef at the end, or when none came in time
sub hear {
    my ($c, $seconds) = @_;
    my $message = '';
    while (1) {
        if (length $c->{buf} >= 2) {
            my ($first, $len) = unpack 'CC', $c->{buf};
            my $at = 2;
            if ($len == 126) { $len = length $c->{buf} >= 4 ? unpack 'x2n', $c->{buf} : 1 << 30; $at = 4 }
            elsif ($len == 127) { $len = length $c->{buf} >= 10 ? unpack 'x6N', $c->{buf} : 1 << 30; $at = 10 }
            if (length $c->{buf} >= $at + $len) {
                my $part = substr $c->{buf}, $at, $len;
                substr($c->{buf}, 0, $at + $len) = '';
                return undef if ($first & 15) == 8;
                $message .= $part;
                return $message if $first & 128;
                next;
            }
        }
        more($c, $seconds) or return undef;
    }
}

# the next event of a stream
sub event {
    my $c = shift;
    while (1) {
        return $1 if $c->{buf} =~ s/\A.*?\bdata: ([^\n]*)\n\n//s;
        more($c) or return undef;
    }
}

# 1: the connection is closed within the time
sub ends {
    my $c = shift;
    my $end = time + 20;
    while (time < $end) { my $n = more($c, 1); return 1 if defined $n && $n == 0 }
    return 0;
}

# ---- WebSockets -----------------------------------------------------------------------

my %with = map { $_ => 'upgrade=websocket' } 1 .. 3;
my $site;
for my $how (['http:// upgrade=websocket', scheme => 'http', member => \%with], ['ws://', scheme => 'ws'],
             ['ws:// by mod_proxy_wstunnel', scheme => 'ws', conf => 'ProxyWebsocketFallbackToProxyHttp Off']) {
    my ($name, %o) = @$how;
    my $raw = $name =~ /wstunnel/;
    $site = Site->new(members => 3, nodes => 1, %o, $site ? (like => $site) : (),
        conf => join("\n", $o{conf} // (), 'SessionHAMemberTimeout 500ms'));
    # mod_proxy_wstunnel takes nothing but upgrades: there the session is made without httpd
    my $r = $raw ? do { my $a = $site->tomcat(1)->request('GET', '/count'); { head => $a->{headers}, body => $a->{body} } }
                 : $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r->{body});

    my $c = open_socket($site, $cookie);
    like $c->{head}, qr/\AHTTP\/1\.1 101 /, "$name: open";
    unlike $c->{head}, qr/^session-/im, 'none of our fields with it';
    like $c->{head}, qr/^sec-websocket-accept: \S/im, 'and all of the others';
    my $greeting = hear($c);
    is n_of($greeting), $n, 'at the session\'s member';
    is count_in($greeting), 2, 'with the session';
    say_it($c, 'hello');
    is hear($c), 'hello', 'bytes both ways';
    my $long = join '', map { chr(97 + $_ % 26) } 1 .. 70_000;
    say_it($c, substr $long, $_ * 7_000, 7_000) for 0 .. 9;
    ok join('', map { hear($c) // '' } 0 .. 9) eq $long, '70 KB of them';
    sleep 2;
    say_it($c, 'still there');
    is hear($c), 'still there', 'idle for four times SessionHAMemberTimeout';

    $site->tomcat($n)->kill9;
    ok ends($c), 'its member is killed: it ends';
    $c = open_socket($site, $cookie);
    $greeting = hear($c);
    my $m = n_of($greeting);
    ok $m && $m != $n, 'the client comes again: another member';
    is count_in($greeting), 3, 'with the session, as the first handshake left it';
    is_deeply [@{ $site->status->{journal}[0] }{qw(from to outcome)}], ["tomcat$n", "tomcat$m", 'restored'],
        'the journal has it while the tunnel is open';
    unlike $c->{head}, qr/^session-/im, 'none of our fields';

    $site->tomcat($m)->stop_signal;
    ok ends($c), 'its member hangs: it ends';
    $c = open_socket($site, $cookie);
    $greeting = hear($c);
    my $k = n_of($greeting);
    ok $k && $k != $n && $k != $m, 'the client comes again: the third member';
    is count_in($greeting), 4, 'with the session';
    say_it($c, 'once more');
    is hear($c), 'once more', 'and is served';
    $site->tomcat($m)->cont;
    close $c->{sock};
    $site->tomcat($n)->restart;
}

# ---- server-sent events -----------------------------------------------------------------

for my $scheme (qw(http ajp)) {
    $site = Site->new(members => 3, nodes => 1, scheme => $scheme, like => $site, conf => 'SessionHAMemberTimeout 500ms');
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r->{body});

    my $c = open_stream($site, '/events?ms=1500', $cookie);
    like $c->{head}, qr/\AHTTP\/1\.1 200 .*^content-type: text\/event-stream/ims, "$scheme: a stream of events";
    my @e = map { event($c) } 1 .. 3;
    is_deeply [map { [n_of($_), count_in($_), $_ =~ /n=(\d+)/] } @e], [map { [$n, 2, $_] } 1 .. 3],
        'each as it is sent, slower than SessionHAMemberTimeout';
    $site->tomcat($n)->kill9;
    ok ends($c), 'its member is killed: it ends';
    $c = open_stream($site, '/events?ms=100', $cookie);
    my $e = event($c);
    my $m = n_of($e);
    ok $m && $m != $n, 'the client comes again: another member';
    is count_in($e), 3, 'with the session';
    is_deeply [@{ $site->status->{journal}[0] }{qw(from to outcome)}], ["tomcat$n", "tomcat$m", 'restored'],
        'the journal has it while the stream is open';
    like event($c), qr/n=2 /, 'it goes on';

    $site->tomcat($m)->stop_signal;
    ok ends($c), 'its member hangs in the middle: it ends';
    $c = open_stream($site, '/events?ms=100', $cookie);
    $e = event($c);
    my $k = n_of($e);
    ok $k && $k != $n && $k != $m, 'the client comes again: the third member';
    is count_in($e), 4, 'with the session';
    close $c->{sock};
    $site->tomcat($m)->cont;
    $site->tomcat($n)->restart;
    sleep 2;
    $r = $site->get('/count', cookie => $cookie);
    is count_in($r->{body}), 5, 'nothing stale when they are back';
    unlike $site->error_log, qr/AH00052|exit signal/, 'no child died';
}
