# P4: while the member lives, a store that is refused, hung or forgetful fails no request. And when it is back,
# or another node takes over, the next write finds its way.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Site;

plan tests => 23;

my $site = Site->new(members => 2, nodes => 3, timeout => '200ms');
sub all_well {
    my ($cookie, $from, $name) = @_;
    my @r = map { $site->get('/count', cookie => $cookie) } 1 .. 6;
    is join(' ', map { $_->{status} } @r), '200 200 200 200 200 200', "$name: every request is answered";
    is_deeply [map { Site::count_of($_) } @r], [$from .. $from + 5], 'by the session';
}
sub n_of { Site::member_of($_[0]) =~ /(\d+)/; $1 }

my $cookie = Site::cookie_of($site->get('/count'));
all_well($cookie, 2, 'three nodes');

$site->node($_)->stop for 1 .. 3;
all_well($cookie, 8, 'all hung (SIGSTOP)');
my @r = $site->parallel(20, '/count', cookie => $cookie);
is scalar(grep { $_->{status} == 200 } @r), 20, 'twenty at once';
my %state = map { $_->{state} => 1 } @{ $site->status->{stores} };
is_deeply [keys %state], ['down'], 'the page says so';
like $site->error_log, qr/backup of session [0-9a-f]{12} from tomcat\d: unavailable/, 'so does the log';
$site->node($_)->cont for 1 .. 3;
for (1 .. 100) { last unless grep { $_->{state} ne 'up' } @{ $site->status->{stores} }; select undef, undef, undef, 0.1 }
is_deeply [map { $_->{state} } @{ $site->status->{stores} }], [qw(up up up)], 'awake, and found again by the probe';
all_well($cookie, 34, 'awake');

my $r = $site->get('/count', cookie => $cookie);
my $n = n_of($r);
$site->tomcat($n)->kill9;
$r = $site->get('/count', cookie => $cookie);
is Site::count_of($r), 41, 'a failover after it: what was written last is there';
$site->tomcat($n)->restart;
sleep 2;

# each node in turn is killed and restarted empty; two copies, so one is always left
$cookie = Site::cookie_of($r, $cookie);
my $count = 41;
for my $dead (1 .. 3) {
    $site->node($dead)->kill9;
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), ++$count, "node $dead killed: the next write finds its way";
    my $m = n_of($r);
    $site->tomcat($m)->kill9;
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), ++$count, 'and its backup is found';
    $cookie = Site::cookie_of($r, $cookie);
    $site->start_node($dead);
    $site->tomcat($m)->restart;
    for (1 .. 100) { last unless grep { $_->{state} ne 'up' } @{ $site->status->{stores} }; select undef, undef, undef, 0.1 }
    sleep 2;
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), ++$count, 'the node is back, and empty: nothing older comes of it';
}

# hung while a member dies: the session cannot be had, and the request goes on
$site->node($_)->stop for 1 .. 3;
$n = n_of($site->get('/count', cookie => $cookie));
$site->tomcat($n)->kill9;
@r = $site->parallel(10, '/count', cookie => $cookie);
is scalar(grep { $_->{status} == 200 } @r), 10, 'all nodes hung and the member killed: every request is answered';
my %at = map { Site::member_of($_) => 1 } @r;
is keys %at, 1, 'by one member';
is $site->status->{journal}[0]{outcome}, 'unavailable', 'the journal says that the store could not be asked';
