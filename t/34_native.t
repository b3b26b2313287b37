# SessionHABackup native: Tomcats that copy their sessions among themselves (DeltaManager, JvmRouteBinderValve). The
# module stores nothing of them; it claims, sends all requests of a session to one member, and lets one go first.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Site;

my ($rounds, $ms) = (3, 400);
plan tests => $rounds * 7 + 2 + 7;

# when each request began, by the member's own clock: the order in which the gate let them in
my $access = '<Valve className="org.apache.catalina.valves.AccessLogValve" directory="logs" prefix="access" suffix=".log" '
    . 'rotatable="false" buffered="false" pattern="%{begin:msec}t %U%q"/>';
my %begun;
sub begins {
    my ($site, $n) = @_;
    my $file = $site->tomcat($n)->base . '/logs/access.log';
    open my $fh, '<', $file or die "$file: $!";
    my @lines = grep { /burst/ } <$fh>;
    my @new = @lines[($begun{$n} // 0) .. $#lines];
    $begun{$n} = @lines;
    return sort { $a <=> $b } map { /^(\d+)/ } @new;
}

sub n_of { (Site::member_of($_[0]) // '') =~ /(\d+)/; $1 }

# A session that has counted to 5 and whose member is dead. The copies are made before the answer goes out
# (channelSendOptions 6), so nothing is lost with the member.
my $dead;
sub bereaved {
    my ($site) = @_;
    if ($dead) {
        $site->tomcat($dead)->restart;
        sleep 2;        # retry=1
    }
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    $r = $site->get('/count', cookie => $cookie) for 2 .. 5;
    Site::count_of($r) == 5 or die "counted to " . Site::count_of($r);
    $dead = n_of($r);
    $site->tomcat($dead)->kill9;
    return $cookie;
}

sub distinct { my %d = map { (Site::count_of($_) // -1) => 1 } @_; return sort { $a <=> $b } keys %d }
sub members { my %m = map { (Site::member_of($_) // "status $_->{status}") => 1 } @_; join ' ', sort keys %m }

my $native = "SessionHABackup native\nSessionHANative none";
my $site = Site->new(members => 3, nodes => 1, cluster => 'delta', valve => 0, conf => $native,
    memcached => ['-vv'], tomcat => { send_options => 6, context_xml => $access });

for my $round (1 .. $rounds) {
    my $cookie = bereaved($site);
    my @r = $site->parallel(20, "/count?burst&ms=$ms", cookie => $cookie);
    is join(' ', map { $_->{status} } @r), join(' ', (200) x 20), "round $round: all answered";
    like members(@r), qr/\Atomcat\d\z/, 'by one member';
    is_deeply [distinct(@r)], [6 .. 25], 'twenty updates, twenty counts';
    my ($n) = n_of($r[0]);
    my @begin = begins($site, $n);
    is @begin, 20, 'each of them run once';
    cmp_ok $begin[1] - $begin[0], '>=', $ms - 5, 'the others were let in when the first one was answered'
        or diag join ' ', map { $_ - $begin[0] } @begin;
    my @moves = @{ $site->status->{journal} };
    is_deeply [@moves + 0, map { $moves[0]{$_} } qw(from to outcome epoch seq bytes)],
        [$round, "tomcat$dead", "tomcat$n", 'native', 2, 0, 0], 'one entry in the journal' or diag explain $moves[0];
    my $after = Site::cookie_of($r[0]);
    is Site::count_of($site->get('/count', cookie => $after)), 26, 'and on it goes with the cookie that the member gave';
}

my %asked;
$asked{$_}++ for grep { $_ ne 'get ha:c' } map { /^(\w+ ha:[bc]):/ } $site->node_log(1);
is_deeply \%asked, { 'add ha:c' => $rounds, 'set ha:c' => $rounds }, 'the store: for each takeover a claim, and the word that it was answered; no backup'
    or diag explain \%asked;
my %total;
for my $m (@{ $site->status->{balancers}[0]{members} }) { $total{$_} += $m->{$_} for qw(moved_out moved_in native restored missing) }
is_deeply \%total, { moved_out => $rounds, moved_in => $rounds, native => $rounds, restored => 0, missing => 0 }, 'counted at the members';

# Two httpds with one store: the one that comes second waits for the answer of the other's first request.
{
    my $other = Daemon->httpd(my $port = Site::free_port(), $site->httpd_conf);
    my $cookie = bereaved($site);
    my @s = map { $site->send_request("/count?burst&ms=$ms", cookie => $cookie, $_ % 2 ? () : (port => $port)) } 1 .. 20;
    my @r = map { Site::read_answer($_) } @s;
    is join(' ', map { $_->{status} } @r), join(' ', (200) x 20), 'two httpds: all answered';
    like members(@r), qr/\Atomcat\d\z/, 'by one member';
    is_deeply [distinct(@r)], [6 .. 25], 'twenty updates, twenty counts';
    my @begin = begins($site, n_of($r[0]));
    is @begin, 20, 'each of them run once';
    cmp_ok $begin[1] - $begin[0], '>=', $ms - 5, 'the first one alone, through both' or diag join ' ', map { $_ - $begin[0] } @begin;
    is scalar(grep { /^ha:c:/ } $site->node_keys(1)), $rounds + 1, 'one claim';
    like $site->error_log . Daemon::tail_of("$other->{dir}/error_log", 0), qr/: native, epoch 2/, 'and a line in the log';
    $other->end;
}

# The same burst without the module. A race: reported, not judged.
$site = Site->new(like => $site, off => 1, conf => $native);
my @r = $site->parallel(20, '/count?ms=20', cookie => bereaved($site));
diag sprintf 'stock, the same burst: %d of 20 updates kept, members: %s', scalar(grep { $_ > 5 } distinct(@r)), members(@r);
