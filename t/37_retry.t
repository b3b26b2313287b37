# Requests that are with a member when it dies or hangs: answered by the session's new member, where running them
# twice does no harm; never run twice where it might.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Digest::SHA ();
use IO::Socket::INET;
use Time::HiRes qw(sleep);
use Site;

plan tests => 53;

sub n_of { (Site::member_of($_[0]) // '') =~ /(\d+)/; $1 }
sub statuses { join ' ', map { $_->{status} } @_ }
sub members { my %m = map { (Site::member_of($_) // 'none') => 1 } @_; join ' ', sort keys %m }

# connections that have been used before: for these stock mod_proxy_http closes instead of answering
sub used_connections {
    my ($site, $n, $cookie) = @_;
    map {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $site->{port}) or die $!;
        syswrite $s, "GET /count?peek HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: $cookie\r\n\r\n";
        my $in = '';
        until ($in =~ /\r\n\r\n/ && do { my ($len) = $in =~ /Content-Length: (\d+)/i; length($in) >= index($in, "\r\n\r\n") + 4 + ($len // 0) }) {
            sysread $s, $in, 65536, length $in or die 'closed';
        }
        $s } 1 .. $n;
}

# more threads than connections: with fewer, mpm_event closes idle keep-alive connections
my $threads = <<'C';
Protocols h2c http/1.1
<IfModule !mpm_prefork_module>
  ThreadsPerChild 30
  MaxRequestWorkers 120
</IfModule>
C
my $site;
for my $scheme (qw(http ajp)) {
    $site = Site->new(members => 3, nodes => 1, scheme => $scheme, conf => $threads);
    my $count = 1;
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    for my $how ('fresh', 'keep-alive', 'h2') {
        my $n = n_of($site->get('/count?peek', cookie => $cookie));
        my @r;
        if ($how eq 'h2') {
            my $pid = open my $curl, '-|', 'curl', '-sS', '--no-progress-meter', '--http2-prior-knowledge', '--parallel', '--parallel-immediate', '--parallel-max', 20,
                '-w', 'code=%{http_code}\n', '-H', "Cookie: $cookie", map { "http://127.0.0.1:$site->{port}/slow?ms=1500&n=$_" } 1 .. 20;
            defined $pid or die "curl: $!";
            sleep 0.7;
            $site->tomcat($n)->kill9_at_once;
            my $out = join '', <$curl>;
            close $curl;
            my @code = $out =~ /code=(\d+)/g;
            my %m = map { $_ => 1 } $out =~ /member=(\S+)/g;
            is join(' ', @code), join(' ', (200) x 20), "$scheme $how: twenty in flight at kill -9, all answered";
            is keys %m, 1, 'by one member';
        }
        else {
            my @s = $how eq 'fresh' ? map { $site->send_request("/slow?ms=1500&n=$_", cookie => $cookie) } 1 .. 20
                                    : used_connections($site, 20, $cookie);
            if ($how eq 'keep-alive') {
                syswrite $_, "GET /slow?ms=1500 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nCookie: $cookie\r\n\r\n" for @s;
            }
            sleep 0.7;
            $site->tomcat($n)->kill9_at_once;
            @r = map { Site::read_answer($_) } @s;
            is statuses(@r), join(' ', (200) x 20), "$scheme $how: twenty in flight at kill -9, all answered";
            is scalar(split / /, members(@r)), 1, 'by one member' or diag members(@r);
        }
        $site->tomcat($n)->wait_gone;
        $r = $site->get('/count?peek', cookie => $cookie);
        $count = Site::count_of($r);
        ok $count >= 20, "nothing is lost ($count)";
        $cookie = Site::cookie_of($r, $cookie);
        $site->tomcat($n)->restart;
        sleep 2;
    }

    # with side effects: never twice
    my $n = n_of($site->get('/count?peek', cookie => $cookie));
    my $s = $site->send_request('/slow?ms=1500', cookie => $cookie, body => 'x=1');
    sleep 0.7;
    $site->tomcat($n)->kill9_at_once;
    $r = Site::read_answer($s);
    ok $r->{status} == 502 || $r->{status} == 500 || $r->{status} == 503, "$scheme: a POST that was with the member is not repeated ($r->{status})";
    $site->tomcat($n)->wait_gone;
    is Site::count_of($site->get('/count?peek', cookie => $cookie)), $count, 'its update is not there twice, nor once';
    $r = $site->get('/count', cookie => $cookie, body => 'y' x 50_000);
    is Site::count_of($r), ++$count, 'a POST to the dead member, that it never got, is';
    $cookie = Site::cookie_of($r, $cookie);
    $site->tomcat($n)->restart;
    sleep 2;

    # a body goes along: Content-Length and chunked
    for my $how ('length', 'chunked') {
        $n = n_of($site->get('/count?peek', cookie => $cookie));
        my $body = join '', map { chr(33 + $_ % 90) } 1 .. 60_000;
        my $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $site->{port}) or die $!;
        print $sock "PUT /body?ms=1500 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nCookie: $cookie\r\n";
        print $sock $how eq 'length' ? 'Content-Length: ' . length($body) . "\r\n\r\n$body"
            : "Transfer-Encoding: chunked\r\n\r\n" . join('', map { sprintf "%x\r\n%s\r\n", length, $_ } unpack '(a7777)*', $body) . "0\r\n\r\n";
        $sock->flush;
        sleep 0.7;
        $site->tomcat($n)->kill9_at_once;
        $r = Site::read_answer($sock);
        is $r->{status}, 200, "$scheme: a PUT in flight, 60 KB, $how: repeated";
        like $r->{body}, qr/\bbody=60000 sha256=@{[ Digest::SHA::sha256_hex($body) ]} /, 'with every byte';
        $site->tomcat($n)->wait_gone->restart;
        sleep 2;
        $cookie = Site::cookie_of($site->get('/count?peek', cookie => $cookie), $cookie);
    }
}

# a request that kills its member: one repeat, no third member
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    my $s = $site->send_request('/slow?ms=3000', cookie => $cookie);
    sleep 0.7;
    $site->tomcat($n)->kill9_at_once;
    sleep 1;
    my ($m) = map { $_->{to} =~ /(\d+)/ } grep { $_->{from} eq "tomcat$n" } @{ $site->status->{journal} };
    # not yet in the journal while the request runs: ask who has the session now
    $m = n_of($site->get('/count?peek', cookie => $cookie));
    $site->tomcat($m)->kill9_at_once;
    $r = Site::read_answer($s);
    ok $r->{status} >= 500, "killed its second member too: the client is told ($r->{status})";
    $_->wait_gone for map { $site->tomcat($_) } $n, $m;
    $r = $site->get('/count', cookie => $cookie);
    is $r->{status}, 200, 'the third one lives';
    $site->tomcat($_)->restart for $n, $m;
    sleep 2;
}

# a member that is restarted before anybody notices: it says that it does not have the session
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    $site->get('/count', cookie => $cookie);
    $site->tomcat($n)->restart;
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), 3, 'restarted unnoticed: the session is handed over and the request repeated';
    is n_of($r), $n, 'at the same member';
    $site->tomcat($n)->restart;
    $r = $site->get('/count', cookie => $cookie, body => 'z' x 40_000);
    is Site::count_of($r), 4, 'a POST with its body too: it had not been run';
    my @r = map { $site->tomcat($n)->restart; $site->parallel(20, '/count', cookie => $cookie) } 1;
    is statuses(@r), join(' ', (200) x 20), 'twenty at once';
    is_deeply [sort { $a <=> $b } map { Site::count_of($_) } @r], [5 .. 24], 'twenty updates';
}

# a hung member
for my $scheme (qw(http ajp)) {
    my $hung = Site->new(members => 3, nodes => 1, scheme => $scheme, conf => 'SessionHAMemberTimeout 400ms', retry => 'retry=2');
    my $r = $hung->get('/count');
    my $cookie = my $first = Site::cookie_of($r);
    my $n = n_of($r);
    $r = $hung->get('/slow?ms=1500', cookie => $cookie);
    is n_of($r), $n, "$scheme: a slow page of a healthy member is waited for";
    is Site::count_of($r), 2, 'and comes from it';
    $hung->tomcat($n)->stop_signal;
    my @r = $hung->parallel(20, '/count', cookie => $cookie);
    is statuses(@r), join(' ', (200) x 20), 'SIGSTOP: twenty requests, all answered';
    is_deeply [sort { $a <=> $b } map { Site::count_of($_) // -1 } @r], [3 .. 22], 'by the session';
    is scalar(split / /, members(@r)), 1, 'at one member';
    $hung->tomcat($n)->cont;
    sleep 3;
    $r = $hung->get('/count', cookie => $first);
    is Site::count_of($r), 23, 'SIGCONT: the old cookie finds the session, not the stale copy';
    isnt n_of($r), $n, 'where it is now';
}
