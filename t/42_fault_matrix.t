# Each kind of store under each fault, with its real server: what a request is answered while its member lives and after
# it was killed, what the log says, what the page shows. A cell that breaks a promise is red.
#
# A few faults of each here; `make fault-matrix` runs all and prints the table of doc/stores.md (it is in
# t/logs/fault-matrix). FAULT_MATRIX=all, or "redis full,lmdb slow".
#
# Each cell has an httpd of its own, two balancers with the same two Tomcats: one keeps sessions on the node that fails, the other
# on that one and a second. In each two sessions are begun, and counted up to 3. Then the fault. One of them is counted up to 5
# while the member lives; then the member is killed, and both are asked for.
use strict;
use warnings;
use Hosts;      # namespaces of our own: a file system that is small enough to be full
use Apache::Test qw(-withtestmore);
use JSON::PP ();
use POSIX ();
use Time::HiRes qw(sleep time);
use Daemon;
use Site;
use StoreNode;
use Tomcat;

my @KINDS = qw(memcached libmemcached redis dbd:mysql dbd:pgsql dbd:sqlite3 file lmdb);
my @FAULTS = qw(refused kill stop slow empty old cut wrong full oom);
my %SAID = (refused => 'refused', kill => 'killed', stop => 'stopped', slow => 'slow', empty => 'returns empty', old => 'returns old',
    cut => 'truncated reply', wrong => 'wrong reply', full => 'disk full', oom => 'out of memory');
my @SOME = ('memcached stop', 'memcached cut', 'libmemcached wrong', 'redis oom', 'redis old', 'dbd:mysql empty', 'dbd:pgsql stop', 'dbd:pgsql full',
    'dbd:sqlite3 slow', 'file full', 'lmdb slow', 'lmdb full');
my $BOUND = $ENV{VALGRIND} ? 5000 : 1000;

my $asked = $ENV{FAULT_MATRIX} // join ',', @SOME;
my @cells = map { my $kind = $_; map { [$kind, $_] } @FAULTS } @KINDS;
@cells = grep { my $cell = "@$_"; grep { $cell =~ /^\Q$_\E/ } split /,\s*/, $asked } @cells if $asked ne 'all';
plan tests => 5 * @cells;

my $v = Apache::Test::vars();
Hosts->new;
my $bare = { at => '127.0.0.1', in => [qw(setpriv --inh-caps=-all --ambient-caps=-all)] };
$Daemon::on = $bare;
my $dir = "$v->{t_logs}/matrix-$$";
my $disk = "$dir/disk";
mkdir $_ or die "$_: $!\n" for $dir, $disk, "$dir/second";
Hosts::run('mount', '-t', 'tmpfs', '-o', 'size=48m,mode=0755', 'none', $disk);
open my $fh, '>', "$dir/secret" or die "$dir/secret: $!";
print $fh "a secret of the fault matrix, which is nowhere else\n";
close $fh;
chmod 0600, "$dir/secret";

# ---- what every cell uses -------------------------------------------------------------

my @tomcats = Tomcat->start_all(map { { route => "tomcat$_", secret_file => "$dir/secret", valve => 1, context => '', host => $bare } } 1, 2);
my $port = Site::free_port();
my ($httpd, %site);

sub get { my ($which, $cookie) = @_; return Site::read_answer(Site::send_request({ port => $port }, "/$which/count", cookie => $cookie)) }
sub status { return JSON::PP::decode_json(Site::read_answer(Site::send_request({ port => $port }, '/session-ha-status?format=json'))->{body}) }

sub start_httpd {
    my ($one, @two) = @_;
    my $members = join '', map { "  BalancerMember http://127.0.0.1:" . $_->http_port . ' route=' . $_->route . "\n" } @tomcats;
    my $balancers = join '', map { my ($name, @urls) = @$_; <<C } ['one', $one], ['two', $one, @two];
<Proxy "balancer://$name">
$members  ProxySet stickysession=JSESSIONID|jsessionid
  SessionHA On
  SessionHAStore @{[ map { "\"$_\"" } @urls ]}
</Proxy>
ProxyPass "/$name/" "balancer://$name/"
C
    $httpd = Daemon->httpd($port, <<C);
LogFormat "%D %>s" took
CustomLog $dir/took took
SessionHASecret file:$dir/secret
SessionHAStoreTimeout ${BOUND}ms
<Location "/session-ha-status">
  SetHandler session-ha-status
</Location>
$balancers
C
}
sub log_from { return Daemon::tail_of("$httpd->{dir}/error_log", $_[0]) }
# the longest since then, in ms
sub longest { my ($offset) = @_; my ($most) = sort { $b <=> $a } 0, Daemon::tail_of("$dir/took", $offset) =~ /^(\d+) /mg; return POSIX::ceil($most / 1000) }

# a new session of this balancer, at this member
sub session_at {
    my ($which, $member) = @_;
    for (1 .. 20) {
        my $r = get($which);
        return Site::cookie_of($r) if Site::member_of($r) eq $member;
    }
    die "no session at $member\n";
}

sub filled {
    my $file = "$disk/filler";
    open my $fh, '>', $file or die "$file: $!";
    my $n = 65536;
    while ($n) { my $done = syswrite $fh, "\0" x $n; $n = $done && $done == $n ? $n : $n > 1 ? int $n / 2 : 0 }
    close $fh;
    return sub { unlink $file };
}

# the first line that says what was wrong, without what differs from one run to the next
sub said {
    my ($log, $node) = @_;
    my @lines = map { s/^\[[^\]]*\] //r } grep { /\[session_ha:(?:warn|error|crit)\]/ } split /\n/, $log;
    my ($line) = ((grep { /backup of/ } @lines), @lines, '-');
    $line =~ s/^(?:\[[^\]]*\] )*(?:\[client [^\]]*\] )?//;
    $line =~ s/^balancer:\/\/\w+: //;
    $line =~ s/session [0-9a-f]{12} /session /;
    $line =~ s/, epoch \d+, \d+ bytes, \d+ store round trips, \d+ us//;
    $line =~ s/, \d+ bytes//;
    $line =~ s/\Q$node\E/NODE/g;
    return $line;
}

# ---- a cell -----------------------------------------------------------------------------

my (%node, @table);
sub node { my ($kind, $name) = @_; return $node{"$kind $name"} ||= StoreNode->new($kind, dir => $dir, disk => $name eq 'n1' ? $disk : "$dir/second", name => ($kind =~ tr/://dr) . ".$name") }

sub cell {
    my ($kind, $fault) = @_;
    my $node = node($kind, 'n1');
    my $relayed = $node->is_relayed($fault);
    my @second = $node->can('alone') ? () : map { $_->url } node($kind =~ /^dbd/ ? 'dbd:sqlite3' : $kind, 'n2');
    $_->pid ? $_->wait_ready : $_->launch->wait_ready for @tomcats;
    start_httpd($node->url($relayed), @second);

    my @which = @second ? qw(one two) : qw(one);
    my $member = 'tomcat1';
    my %session = map { my $w = $_; map { ("$w $_" => session_at($w, $member)) } qw(used unused) } @which;
    get(/(\w+)/, $session{$_}) for keys %session;
    $node->snapshot if $fault eq 'old';
    get(/(\w+)/, $session{$_}) for keys %session;

    my ($log, $took) = (-s "$httpd->{dir}/error_log", -s "$dir/took");
    my $heal;
    if ($node->can('is_replaced') && $node->is_replaced($fault)) {
        $httpd->end;
        $heal = $node->$fault;
        start_httpd($node->url, @second);
    }
    else {
        $heal = $node->$fault($fault eq 'full' ? \&filled : ());
    }

    # the member lives
    my @alive = map { my $w = $_; map { get($w, $session{"$w used"}) } 1, 2 } @which;
    my %seen = map { ($_->{status} . (Site::count_of($_) // '-') => 1) } @alive;
    my $longest = longest($took);
    my ($shown) = grep { $_->{node} =~ /^\Q@{[ $node->url($relayed) =~ s{,user=.*,dbname}{,dbname}r =~ s{\?.*}{}r ]}\E\z/ } @{ status()->{stores} };

    # it is killed
    $tomcats[0]->kill9;
    my %moved = map { my ($w) = /(\w+)/; ($_ => get($w, $session{$_})) } sort { $b cmp $a } keys %session;
    my %outcome = map { ($_->{balancer} =~ s{.*/}{}r . " $_->{session}" => $_) } reverse @{ status()->{journal} };
    my $lines = log_from($log);
    $httpd->end;
    $heal->();
    $tomcats[0]->launch;

    my $name = "$kind, $SAID{$fault}";
    is join(' ', map { $_->{status} } @alive), join(' ', (200) x @alive), "$name: every request is answered while the member lives";
    is join(' ', map { Site::count_of($_) // '-' } @alive), join(' ', (4, 5) x @which), 'by the session, whatever the store says';
    is join(' ', map { $_->{status} } values %moved), join(' ', (200) x values %moved), 'and after it was killed';
    my %count = map { ($_ => Site::count_of($moved{$_}) // '-') } keys %moved;
    # what no node of the store holds any more is lost, and begins anew; nothing else is answered
    like "$count{'one used'} $count{'one unused'}", qr/^[13456] [134]\z/, "with one node: $count{'one used'}, $count{'one unused'}";
    is @second ? "$count{'two used'} $count{'two unused'}" : '6 4', '6 4', 'with a second node: what was acknowledged last';

    my $was = sub { my ($count, $newest) = @_; return $count eq $newest ? 'restored' : $count eq 1 ? 'lost' : 'restored, older' };
    my @unavailable = grep { $_->{outcome} eq 'unavailable' && $_->{balancer} =~ m{/one\z} } values %outcome;
    my $one = $was->($count{'one unused'}, 4);
    $one = @unavailable ? 'unavailable' : 'missing' if $one eq 'lost';
    my $again = $was->($count{'one used'}, 6);
    push @table, [$kind, $SAID{$fault}, join('/', sort { $a <=> $b } map { $_->{status} } @alive) =~ s/^(\d+)(?:\/\1)*\z/$1/r,
        sprintf('%s, %d time-outs, %d ms', $longest <= $BOUND + 250 ? 'yes' : 'no', $shown->{timeouts} // -1, $longest),
        $one . ($one eq 'unavailable' ? '' : "; written since: $again"), @second ? $was->($count{'two unused'}, 4) : '-',
        ($shown->{state} // '?') . ($shown->{errors} ? ", $shown->{errors} errors" : ''), said($lines, $shown->{node} // '')];
}

my %why;
for my $c (@cells) {
    my ($kind, $fault) = @$c;
    my $node = node($kind, 'n1');
    if ($node->can_do($fault)) {
        cell($kind, $fault);
    }
    else {
        push @{ $why{ $node->cannot($fault) } }, "$kind, $SAID{$fault}";
        push @table, [$kind, $SAID{$fault}, ('-') x 6];
        pass "$kind: $SAID{$fault}: " . $node->cannot($fault) for 1 .. 5;
    }
}
$_->end for values %node;

my @head = ('store', 'fault', 'member lives', "within $BOUND ms", 'member killed', '... and a second node', 'the page', 'the log');
my $text = join '', map { "| $_ |\n" } map { join ' | ', @$_ } [@head], [map { '---' } @head], @table;
$text .= "\n- $_: " . join('; ', @{ $why{$_} }) . "\n" for sort keys %why;
note $text;
open my $out, '>', "$v->{t_logs}/fault-matrix" or die "fault-matrix: $!";
print $out $text;
close $out;
