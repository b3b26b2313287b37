# Capture: what a member hands over survives it, from 1 byte to the limit, over http and ajp, sync and async; ids
# that change, sessions that end.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Site;

my @sizes = (1, 4_000, 60_000, 900_000);
plan tests => 3 * (@sizes * 4 + 3) + 12 + 3 + 13;

sub n_of { (Site::member_of($_[0]) // "") =~ /(\d+)/; $1 }
sub sum_of { $_[0]{body} =~ /\bsha256=(\S+)/ ? $1 : 'none' }

for my $how (['http', 'sync'], ['ajp', 'sync'], ['http', 'async']) {
    my ($scheme, $mode) = @$how;
    my $site = Site->new(members => 2, nodes => 2, scheme => $scheme, conf => "SessionHABackup $mode");
    for my $size (@sizes) {
        my $r = $site->get("/big?bytes=$size");
        my ($cookie, $n, $sum) = (Site::cookie_of($r), n_of($r), sum_of($r));
        is $r->{status}, 200, "$scheme $mode: $size bytes" or diag $r->{body};
        sleep 1 if $mode eq 'async';
        $site->tomcat($n)->kill9;
        $r = $site->get('/big', cookie => $cookie);
        is $r->{status}, 200, 'its member is killed, the request is answered';
        isnt n_of($r), $n, 'by another one';
        is sum_of($r), $sum, 'that has every byte';
        $site->tomcat($n)->restart;
        sleep 2;
    }
    my $r = $site->get('/big?bytes=5000000');
    is $r->{status}, 200, "$scheme $mode: 5 MB: the answer is not touched";
    like $site->error_log, qr/bytes, SessionHAMaxSize is/, 'and the log says why there is no backup';
    my $prom = $site->get('/session-ha-status?format=prometheus')->{body};
    like $prom, qr/session_ha_backups_total\{balancer="balancer:\/\/tomcats",result="too_large"\} [1-9]/, 'it is counted';
}

{
    my $site = Site->new(members => 2, nodes => 1);
    # the id changes at login
    my $r = $site->get('/count');
    my $before = Site::cookie_of($r);
    $r = $site->get('/login', cookie => $before);
    my $after = Site::cookie_of($r, $before);
    isnt $after, $before, 'login: the id changes';
    my $n = n_of($site->get('/count', cookie => $after));
    $site->tomcat($n)->kill9;
    $r = $site->get('/count', cookie => $after);
    is Site::count_of($r), 3, 'the new id is backed up';
    $r = $site->get('/count', cookie => $before);
    is Site::count_of($r), 1, 'the old one is gone';
    $site->tomcat($n)->restart;
    sleep 2;

    # logout leaves a tombstone
    $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    $n = n_of($r);
    is $site->get('/logout', cookie => $cookie)->{status}, 200, 'logout';
    $site->tomcat($n)->kill9;
    $r = $site->get('/count', cookie => $cookie);
    is $r->{status}, 200, 'after logout and kill';
    is Site::count_of($r), 1, 'a new session, not the old one';
    $site->tomcat($n)->restart;
    sleep 2;

    # the id in the URL
    $r = $site->get('/count');
    $cookie = Site::cookie_of($r);
    $n = n_of($r);
    my ($value) = $cookie =~ /=(.*)/;
    $r = $site->get("/count;jsessionid=$value");
    is Site::count_of($r), 2, 'an id in the URL';
    $site->tomcat($n)->kill9;
    $r = $site->get("/count;jsessionid=$value?x=1");
    is Site::count_of($r), 3, 'fails over too';
    isnt n_of($r), $n, 'to another member';
    $site->tomcat($n)->restart;
    sleep 2;

    # the answer begins before the session is touched; asynchronous servlets
    for my $path ('/flush', '/async') {
        $r = $site->get($path);
        $r = $site->get('/count') unless Site::cookie_of($r);
        $cookie = Site::cookie_of($r);
        $r = $site->get($path, cookie => $cookie);
        is $r->{status}, 200, $path;
    }
    is $site->get('/.well-known/session-backup')->{status}, 404, 'the members\' own path is not for clients';
}
{
    # a large state is kept compressed, where that pays
    my $site = Site->new(members => 2, nodes => 1, conf => 'SessionHAMaxSize 400000');
    my $counted = sub {
        my $prom = $site->get('/session-ha-status?format=prometheus')->{body};
        return map { $prom =~ /^session_ha_backup_${_}_total\{[^}]*\} (\d+)/m ? $1 : 0 } qw(bytes kept_bytes);
    };
    my ($told, $kept) = $counted->();
    my $r = $site->get('/big?bytes=300000&text');
    my ($cookie, $n, $sum) = (Site::cookie_of($r), n_of($r), sum_of($r));
    my ($told1, $kept1) = $counted->();
    cmp_ok $told1 - $told, '>=', 300_000, 'words: ' . ($told1 - $told) . ' bytes are handed over';
    cmp_ok $kept1 - $kept, '<', 100_000, 'and ' . ($kept1 - $kept) . ' are kept';
    my ($key) = grep { /^ha:b:/ } $site->node_keys(1);
    my $value = $site->node_value(1, $key);
    cmp_ok length $value, '<', $kept1 - $kept + 300, 'that is what the node has';
    unlike $value, qr/article/, 'and nobody reads it there';
    $site->tomcat($n)->kill9;
    $r = $site->get('/big', cookie => $cookie);
    isnt n_of($r), $n, 'its member is killed: another one answers';
    is sum_of($r), $sum, 'and has every byte';
    $site->tomcat($n)->restart;
    sleep 2;

    ($told1, $kept1) = $counted->();
    $r = $site->get('/big?bytes=300000');
    ($cookie, $n, $sum) = (Site::cookie_of($r), n_of($r), sum_of($r));
    my ($told2, $kept2) = $counted->();
    is $kept2 - $kept1, $told2 - $told1, 'random bytes are kept as they are';
    $r = $site->get('/count');
    my ($told3, $kept3) = $counted->();
    cmp_ok $kept3 - $kept2, '>', $told3 - $told2, 'and a small state as the text that came';
    like $site->get('/session-ha-status')->{body}, qr/$told3 bytes of state, kept as $kept3\b/, 'the page says how much it is';

    # one that was stored under a higher limit is not unpacked under a lower one
    $r = $site->get('/big?bytes=300000&text');
    ($cookie, $n) = (Site::cookie_of($r), n_of($r));
    $site->{conf} = 'SessionHAMaxSize 100000';
    $site->restart_httpd;
    $site->tomcat($n)->kill9;
    $r = $site->get('/big', cookie => $cookie);
    is $r->{status}, 200, 'larger than SessionHAMaxSize has become: answered';
    like $r->{body}, qr/big=0/, 'without it';
    like $site->error_log, qr/the stored state is larger than SessionHAMaxSize/, 'the log says why';
    unlike $site->error_log, qr/$cookie/, 'and not whose';
}
{
    # what is queued is written at a graceful stop
    my $site = Site->new(members => 2, nodes => 1, conf => 'SessionHABackup async');
    my @r = $site->parallel(30, '/count');
    my @cookies = map { Site::cookie_of($_) } @r;
    my ($n) = (n_of($r[0]));
    $site->graceful;
    is $site->get('/count', cookie => $cookies[0])->{status}, 200, 'async and a graceful restart';
    sleep 1;
    my %at = map { $cookies[$_] => n_of($r[$_]) } 0 .. $#r;
    $site->tomcat($n)->kill9;
    my @lost = grep { $at{$_} == $n && Site::count_of($site->get('/count', cookie => $_)) < 2 } @cookies;
    is @lost, 0, 'nothing that was queued is lost';
    ok scalar(grep { $_ == $n } values %at), 'there were some at the killed member';
}
