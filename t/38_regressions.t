# What went wrong once, on real servers, each as its user met it.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Time::HiRes qw(sleep time);
use Backend;
use Site;
use Tomcat;

plan tests => 82;

sub n_of { (Site::member_of($_[0]) // '') =~ /(\d+)/ ? $1 : 0 }
sub statuses { join ' ', map { $_->{status} } @_ }
sub in_error { my ($site, $n) = @_; my ($m) = grep { $_->{route} eq "tomcat$n" } @{ $site->status->{balancers}[0]{members} }; $m->{state} =~ /Err/ }
sub within { my ($seconds, $code) = @_; local $SIG{ALRM} = sub { die "no end\n" }; alarm $seconds; my $r = eval { $code->() }; alarm 0; $r }
sub back { my ($site, @n) = @_; $site->tomcat($_)->restart for @n; sleep 1.2 }

my $site;

# a session that was moved, its first member back, this httpd's memory gone, the store's kept
{
    $site = Site->new(members => 3, nodes => 1);
    my $r = $site->get('/count');
    my $old = Site::cookie_of($r);
    my $n = n_of($r);
    $site->tomcat($n)->kill9;
    $r = $site->get('/count', cookie => $old);
    my ($new, $m) = (Site::cookie_of($r, $old), n_of($r));
    back($site, $n);
    $site->restart_httpd;
    my @r = map { $site->get('/count', cookie => $_) } $old, $new, $old;
    is join(' ', map { Site::count_of($_) } @r), '3 4 5', 'moved, httpd stopped and started: the old cookie finds the session';
    is join(' ', map { n_of($_) } @r), "$m $m $m", 'where it is, no second copy at its first member';
}

# interim answers go to the client past every filter of the request
{
    my $port = Site::free_port();
    my $secret = 'Session-Backup: id="ABC", epoch=1, seq=1, ttl=60, state=:c2VjcmV0:';
    my $long = join "\r\n", map { "X-Long-$_: " . 'x' x 7000 } 1 .. 3;
    my $member = Backend->start(port => $port, app => sub {
        my ($method, $uri) = @_;
        return ("103 Early Hints\r\nLink: </a.css>; rel=preload\r\n$secret\r\nsession-missing : id=\"ABC\"\r\n folded\r\nX-After: 1\r\n\r\nHTTP/1.1 200",
            [$secret], 'early') if $uri =~ /early/;
        return ("103 Early Hints\r\n$long\r\n$secret\r\nX-After: 1\r\n\r\nHTTP/1.1 200", [], 'long') if $uri =~ /long/;
        return ('101 Switching Protocols', ['Upgrade: websocket', 'Connection: Upgrade', $secret, 'X-After: 1'], 'hello') });
    $site = Site->new(nodes => 1, like => $site, conf => <<"C");
Protocols h2c http/1.1
H2EarlyHints on
<Proxy balancer://interim>
  BalancerMember http://127.0.0.1:$port route=w1 upgrade=websocket
  ProxySet stickysession=JSESSIONID
  SessionHA On
</Proxy>
ProxyPass /interim balancer://interim
C
    my $all = sub {
        my ($path, @head) = @_;
        my $s = $site->send_request($path, head => \@head);
        my $raw = '';
        within(20, sub { 1 while sysread $s, $raw, 65536, length $raw; 1 });
        return $raw;
    };
    my $raw = $all->('/interim/early');
    like $raw, qr/\AHTTP\/1\.1 103 .*?\r\nLink: <\/a.css>; rel=preload\r\nX-After: 1\r\n\r\nHTTP\/1\.1 200 .*\bearly/s, '103: it passes';
    unlike $raw, qr/^session-|folded/im, 'without our fields';
    $raw = $all->('/interim/long');
    like $raw, qr/\AHTTP\/1\.1 103 .*?\r\nX-Long-3: x{7000}\r\nX-After: 1\r\n\r\nHTTP\/1\.1 200 .*\blong/s, '103 of 21 KB: it passes';
    unlike $raw, qr/^session-/im, 'without our fields';
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $site->{port}) or die $!;
    syswrite $s, "GET /interim/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    $raw = '';
    within(20, sub { until ($raw =~ /hello/) { sysread $s, $raw, 65536, length $raw or last } 1 });
    like $raw, qr/\AHTTP\/1\.1 101 .*X-After: 1\r\n.*\r\n\r\nhello/s, '101: it passes, and what follows';
    unlike $raw, qr/^session-/im, 'without our fields';
    close $s;
    my $out = qx(curl -sS -m 20 --http2-prior-knowledge -D - http://127.0.0.1:$site->{port}/interim/early 2>&1);
    like $out, qr/HTTP\/2 103.*HTTP\/2 200.*early/s, '103 over HTTP/2';
    unlike $out, qr/^session-/im, 'without our fields';
    like $site->get('/interim/early')->{body}, qr/early/, 'and the connections go on' for 1;
    $member->kill9;
}

# a request's fields go to the member in one piece: the same bytes as without us, and our own field
{
    my $port = Site::free_port();
    my $member = Backend->start(port => $port, app => sub { (200, [], $_[4]) });
    $site = Site->new(nodes => 1, like => $site, conf => <<"C");
LogLevel session_ha:info
@{[ map { <<"B" } qw(On Off) ]}
<Proxy balancer://$_>
  BalancerMember http://127.0.0.1:$port route=w1
  ProxySet stickysession=JSESSIONID
  SessionHA $_
</Proxy>
ProxyPass /head$_ balancer://$_
B
C
    my %heads = (
        'few fields' => [],
        'twice, empty, with blanks' => ['X-Twice: 1', "X-Empty:", 'X-Twice: 2', "X-Blanks: a \t b  ", 'Cookie: a=b; c="d"', 'Hostile: x'],
        'what mod_proxy takes away' => ['TE: trailers', 'Keep-Alive: 5', 'X-Mine: 1', 'Session-Restore: id="a", none', 'Upgrade: x'],
        'long ones' => ['X-Long: ' . 'l' x 8000, 'X-Longer: ' . 'm' x 8000, 'X-Longest: ' . 'n' x 8000],
        'many of them' => [map { "X-Field-$_: $_" } 1 .. 90],
    );
    for my $what (sort keys %heads) {
        my ($on, $off) = map { Site::read_answer($site->send_request("/head$_/x", head => $heads{$what}))->{body} } qw(On Off);
        my $ours = $on =~ s/^Session-Backup-Accept: v=1, inline=4096\r\n//m;
        ok $ours && $on eq $off, "$what: the same head" or diag "on:\n$on\noff:\n$off";
    }
    my $r = Site::read_answer($site->send_request('/headOn/x', method => 'POST', body => 'abc', head => ['X-Mine: 1']));
    like $r->{body}, qr/^X-Mine: 1\r\n(?:.*\r\n)*Content-Length: 3\r\n/m, 'and the length of a body';
    unlike $site->error_log, qr/mod_proxy does not write fields/, 'each child has looked at what mod_proxy writes';
    like $site->get('/count')->{body}, qr/./, 'and the others go on' for 1;
    $member->kill9;
}

# one connection to a member, and a state that needs a second one while the answer is on its way
{
    my $v = Apache::Test::vars();
    my $event = $v->{httpd_conf};
    for my $mpm ('as it is', 'prefork') {
        if ($mpm eq 'prefork') {
            open my $in, '<', $event or die "$event: $!";
            my $modules = join '', <$in>;
            $modules =~ s/mpm_(?:event|worker)/mpm_prefork/g;
            $modules =~ s/^LoadModule http2_module.*\n//m;
            open my $out, '>', "$v->{t_logs}/prefork.conf" or die $!;
            print $out $modules;
            close $out;
            $v->{httpd_conf} = "$v->{t_logs}/prefork.conf";
        }
        $site = Site->new(nodes => 1, like => $site, member => { map { $_ => 'max=1' } 1 .. 3 });
        my $r = within(20, sub { $site->get('/big?bytes=60000') });
        my $cookie = Site::cookie_of($r);
        my @r = map { within(20, sub { $site->get('/overflow?bytes=3000000', cookie => $cookie) }) || { status => 0, body => '' } } 1 .. 2;
        is statuses(@r), '200 200', "max=1, MPM $mpm: a fetched state and a long answer: no deadlock";
        ok 3_000_000 < length $r[1]{body}, 'all of it';
        my $n = n_of($r);
        $site->tomcat($n)->kill9;
        $r = within(20, sub { $site->get('/big', cookie => $cookie) });
        like $r->{body}, qr/big=60000/, 'and the backup is good';
        back($site, $n);
        @r = within(30, sub { [$site->parallel(8, '/count', cookie => $cookie)] });
        is statuses(@{ $r[0] || [] }), join(' ', (200) x 8), 'eight at once';
    }
    $v->{httpd_conf} = $event;
}

# an heir that does not take the session: it lives, so it is not put into error, and the client is answered
for my $how ('no Valve', 'another secret') {
    my $other = "$site->{dir}/other";
    open my $fh, '>', $other or die $!;
    print $fh 'f' x 64, "\n";
    close $fh;
    chmod 0600, $other;
    $site = Site->new(nodes => 1, like => $site, member => { 3 => 'status=+D' }, conf => $how eq 'no Valve' ? '' : 'ProxyErrorOverride On');
    my ($r, $cookie);
    my $two = $site->tomcat(2);
    $two->kill9;
    for (1 .. 2) { $r = $site->get('/big?bytes=20000') }        # the dead one is met, then it is all at the first
    $cookie = Site::cookie_of($r);
    is n_of($r), 1, "an heir with $how";
    my $heir = Tomcat->start(route => 'tomcat2', context => '', http_port => $two->http_port, ajp_port => $two->ajp_port,
        $how eq 'no Valve' ? (valve => 0) : (valve => 1, secret_file => $other));
    sleep 1.2;
    $site->tomcat(1)->kill9;
    $r = $site->get('/big', cookie => $cookie);
    is $r->{status}, 200, 'the request is answered';
    is n_of($r), 2, 'by the heir';
    ok !in_error($site, 2), 'which is not in error';
    is $site->status->{journal}[0]{outcome}, 'refused', 'outcome refused';
    $heir->kill9;
    undef $heir;
    back($site, 1, 2);
}

# bodies that cannot be kept, with a session that is not there
for my $scheme (qw(http ajp)) {
    $site = Site->new(nodes => 1, like => $site, scheme => $scheme);
    my $body = 'b' x 200_000;
    my $id = '0123456789ABCDEF' x 2;
    for my $route ('tomcat1', 'nobody') {
        my $r = within(20, sub { $site->get('/body', body => $body, cookie => "JSESSIONID=$id.$route") }) || { status => 0, body => 'no end' };
        is $r->{status}, 200, "$scheme: a POST of 200 KB, unknown id, route $route";
        like $r->{body}, qr/\bbody=200000 .* count=1 /, 'whole, in a new session';
    }
    my @r = ($site->get('/max?seconds=1'), $site->get('/count'));
    $site->tomcat(n_of($r[1]))->restart;
    sleep 6;
    my @cookies = map { Site::cookie_of($_) } @r;
    @r = map { my $c = $_; within(20, sub { $site->get('/body', body => $body, cookie => $c) }) || { status => 0, body => 'no end' } } @cookies;
    like "$r[0]{status} $r[0]{body}", qr/\A200 body=200000 .* count=1 /, 'expired: in a new session';
    like "$r[1]{status} $r[1]{body}", qr/\A200 body=200000 .* count=2 /, 'its member was restarted unnoticed: in the session';
}

# SessionHAOnMissing: every request of the lost session, whatever took its backup away
for my $case (['503', 503], ['http://127.0.0.1/sorry', 302]) {
    my ($value, $status) = @$case;
    $site = Site->new(nodes => 1, like => $site, conf => "SessionHAOnMissing $value");
    for my $store ('empty', 'down') {
        my $r = $site->get('/count');
        my $cookie = Site::cookie_of($r);
        my $n = n_of($r);
        $site->node(1)->kill9;
        $site->start_node(1) if $store eq 'empty';
        sleep 2.5;              # the breaker's probe
        $site->tomcat($n)->kill9;
        my @r = map { sleep 1.2 if $_ == 3; $site->get('/count', cookie => $cookie) } 1 .. 3;  # the third: mod_proxy tries the member again
        is statuses(@r), join(' ', ($status) x 3), "SessionHAOnMissing $value, store $store: each request";
        is $r[2]{head}{location}[0], $value, 'to the page' if $status == 302;
        is $site->get('/count')->{status}, 200, 'a new visitor is served';
        back($site, $n);
    }
}

# a restore and the client's own 7 KB of cookies: the member's header limit is for the latter
{
    $site = Site->new(nodes => 1, like => $site);
    my $r = $site->get('/big?bytes=3600');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    $site->tomcat($n)->kill9;
    $r = $site->get('/big', cookie => "$cookie; other=" . 'x' x 7000);
    is $r->{status}, 200, 'a restore and 7 KB of other cookies';
    like $r->{body}, qr/big=3600/, 'the session is there';
    back($site, $n);

    # a member that is taken out of the configuration
    $r = $site->get('/count');
    ($cookie, $n) = (Site::cookie_of($r), n_of($r));
    my $file = "$site->{httpd}{dir}/httpd.conf";
    open my $in, '<', $file or die "$file: $!";
    my $conf = join '', <$in>;
    $conf =~ s/^\s*BalancerMember \S+ route=tomcat$n .*\n//m or die "no member $n in $file";
    open my $out, '>', $file or die "$file: $!";
    print $out $conf;
    close $out;
    $site->graceful;
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), 2, 'its member is taken out of the configuration: the session goes on';
    isnt n_of($r), $n, 'elsewhere';
    is $site->status->{journal}[0]{cause}, 'gone', 'the journal says why';
}

# SessionHABackup off: as SessionHA Off
{
    $site = Site->new(nodes => 1, like => $site, conf => 'SessionHABackup off');
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    is Site::count_of($site->get('/count', cookie => $cookie)), 2, 'SessionHABackup off: sticky as ever';
    $site->tomcat($n)->kill9;
    $r = $site->get('/count', cookie => $cookie, head => ['Session-Restore: id="x", none']);
    is "$r->{status} " . Site::count_of($r), '200 1', 'no failover of ours';
    is_deeply $site->status->{journal}, [], 'nothing in the journal';
    is scalar(@{[ $site->node_keys(1) ]}), 0, 'nothing in the store';
    back($site, $n);
}

# logged out, then its member dies: nothing was lost, nobody is alarmed
{
    $site = Site->new(nodes => 1, like => $site);
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    $site->get('/logout', cookie => $cookie);
    $site->tomcat($n)->kill9;
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), 1, 'logged out, its member killed: a new session';
    ok !(grep { $_->{outcome} eq 'missing' } @{ $site->status->{journal} }), 'no "missing" in the journal';
    unlike $site->error_log, qr/session_ha:warn/, 'no warning';
    back($site, $n);
}

# what is repeated and what is not: all with the member when it is killed
{
    $site = Site->new(nodes => 1, like => $site, conf => <<'C');
SetEnvIf Request_URI ^/slow session-ha-retry
<Location /slow>
  SessionHARetry idempotent max=2
</Location>
<Location /async>
  SessionHARetry off
</Location>
<Location /count>
  SessionHARetry safe
</Location>
<Location /body>
  SessionHARetry idempotent body=1k
</Location>
C
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    my @ask = (
        ['POST that session-ha-retry vouches for', '200', '/slow?ms=1500', body => 'x=1'],
        ['GET with SessionHARetry off', '50[02]', '/async?ms=1500'],
        ['GET with SessionHARetry safe', '200', '/count?ms=1500'],
        ['PUT with SessionHARetry safe', '50[02]', '/count?ms=1500', method => 'PUT', body => 'x=1'],
        ['PUT within body=', '200', '/body?ms=1500', method => 'PUT', body => 'x' x 1000],
        ['PUT past body=', '50[02]', '/body?ms=1500', method => 'PUT', body => 'x' x 60_000],
        ['POST that nobody vouches for', '50[02]', '/body?ms=1500', body => 'x' x 1000]);
    my @s = map { my ($what, $status, $path, %o) = @$_; $site->send_request($path, cookie => $cookie, %o) } @ask;
    sleep 0.7;
    $site->tomcat($n)->kill9_at_once;
    for my $i (0 .. $#ask) {
        $r = Site::read_answer($s[$i]);
        like $r->{status}, qr/\A(?:$ask[$i][1])\z/, "in flight at kill -9: $ask[$i][0]";
    }
    $site->tomcat($n)->wait_gone;
    is $site->get('/count?peek', cookie => $cookie)->{status}, 200, 'the session is there';
    back($site, $n);

    # max=2: two members die under it, the third one answers
    $n = n_of($site->get('/count?peek', cookie => $cookie));
    my $s = $site->send_request('/slow?ms=4000', cookie => $cookie);
    sleep 0.7;
    $site->tomcat($n)->kill9->wait_gone;
    my $m = n_of($site->get('/count?peek', cookie => $cookie));
    sleep 0.7;
    $site->tomcat($m)->kill9->wait_gone;
    $r = Site::read_answer($s);
    is $r->{status}, 200, 'max=2: two members die under it, the third one answers';
    ok n_of($r) != $n && n_of($r) != $m, "tomcat$n, tomcat$m, " . (Site::member_of($r) // '-');
    unlike $site->error_log, qr/AH00052|exit signal/, 'no child died';
}
