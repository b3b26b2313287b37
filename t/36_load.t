# Under load: fifty sessions that count, some over several connections at once, while a Tomcat is killed and comes
# back, twice. Every answer is written down; afterwards no acknowledged count may be missing or there twice, and a
# session may have changed its member only where the journal says so.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Digest::SHA qw(sha256_hex);
use JSON::PP ();
use POSIX ();
use Time::HiRes qw(sleep time);
use Site;

my ($sessions, $crowded) = (50, 10);      # so many of them over three connections
plan tests => 12;

my $site = Site->new(members => 3, nodes => 1, conf => "SessionHAJournal 2000");
my @session = map {
    my $r = $site->get('/count');
    { cookie => Site::cookie_of($r), answers => [[0, 1, Site::member_of($r)]] }
} 1 .. $sessions;
my ($ids, $file) = ([map { $_->{cookie} =~ /=([^.]+)/ } @session], "$site->{dir}/answers");

# ---- the clients: one process, all connections at once --------------------------------

my $stop = 0;

sub finish {
    my ($client, $raw, $log) = @_;
    my $r = Site::parse($raw);
    my ($id) = $r->{body} =~ /\bid=([^.\s]+)/;
    $client->{cookie} = Site::cookie_of($r, $client->{cookie});
    push @$log, [@$client{qw(session n)}, $r->{status}, Site::count_of($r), Site::member_of($r), $id, $client->{sent}, time];
}

sub clients {
    my @clients = map { my $s = $_; map { { session => $s, n => $_, cookie => $session[$s]{cookie}, due => time + rand 0.1 } }
        1 .. ($s < $crowded ? 3 : 1) } 0 .. $#session;
    my (@log, %open);
    local $SIG{TERM} = sub { $stop = 1 };
    while (!$stop || %open) {
        my $now = time;
        for my $c (grep { !$_->{socket} && $_->{due} <= $now } $stop ? () : @clients) {
            @$c{qw(sent raw socket)} = ($now, '', $site->send_request('/count?ms=20', cookie => $c->{cookie}));
            $open{ fileno $c->{socket} } = $c;
        }
        my $in = '';
        vec($in, $_, 1) = 1 for keys %open;
        next unless select($in, undef, undef, 0.01) > 0;
        for my $fd (grep { vec $in, $_, 1 } keys %open) {
            my $c = $open{$fd};
            next if sysread $c->{socket}, $c->{raw}, 65536, length $c->{raw};
            delete $open{$fd};
            finish($c, $c->{raw}, \@log);
            @$c{qw(socket due)} = (undef, time + 0.05 + rand 0.1);
        }
    }
    open my $fh, '>', "$file.new" or die "$file: $!";
    print $fh JSON::PP::encode_json(\@log);
    close $fh or die "$file: $!";
    rename "$file.new", $file or die "$file: $!";
}

defined(my $pid = fork) or die "fork: $!";
if (!$pid) {
    eval { clients(); 1 } or print STDERR $@;
    POSIX::_exit(0);
}

# ---- what happens to them ---------------------------------------------------------------

my (@killed, @victim);
for my $which (0, 1) {
    sleep 2.5;
    # the second time the one that has taken over most, so that its sessions move twice
    my ($n) = map { $_->{route} =~ /(\d)/ } sort { $b->{moved_in} <=> $a->{moved_in} } @{ $site->status->{balancers}[0]{members} };
    push @victim, "tomcat$n";
    $site->tomcat($n)->kill9_at_once;
    push @killed, time;
    $site->tomcat($n)->wait_gone;
    sleep 2.5;
    $site->tomcat($n)->restart;
}
sleep 2.5;
kill TERM => $pid;
waitpid $pid, 0;
open my $fh, '<', $file or die "the clients left nothing: $!";
my @log = @{ JSON::PP::decode_json(join '', <$fh>) };
my ($status, $retried, %journal) = ($site->status, 0);
push @{ $journal{ $_->{session} } }, $_ for reverse @{ $status->{journal} };
$retried += $_->{retried} for @{ $status->{balancers}[0]{members} };

# ---- what they saw ------------------------------------------------------------------------

my @failed = grep { $_->[2] != 200 } @log;
diag sprintf '%d requests, %d of them failed, %d repeated', scalar @log, scalar @failed, $retried;
diag sprintf 'status %s, %.3f s, sent %.3f s after the kill', $_->[2], $_->[7] - $_->[6],
    $_->[6] - ($killed[1] < $_->[7] ? $killed[1] : $killed[0]) for @failed > 10 ? @failed[0 .. 9] : @failed;
cmp_ok scalar @log, '>', 20 * $sessions, 'there was load';
is @failed, 0, 'no GET failed, those in flight at the kill neither';
my %at = map { $_->{answers}[0][2] => 1 } @session;
is_deeply [sort keys %at], [qw(tomcat1 tomcat2 tomcat3)], 'on all members';

my (@lost, @backward, @twice, @elsewhere, %moves);
my %last;
for my $a (grep { $_->[2] == 200 } @log) {
    my ($s, $n, undef, $count, $member, $id) = @$a;
    push @lost, "session $s: $id for $ids->[$s]" if ($id // '') ne $ids->[$s];
    push @backward, "session $s: $count after $last{$s,$n}" if $count <= ($last{$s,$n} // 1);
    $last{$s,$n} = $count;
    push @{ $session[$s]{answers} }, [$a->[7], $count, $member];
}
for my $s (0 .. $#session) {
    my ($count, @runs) = (0);
    for my $a (sort { $a->[1] <=> $b->[1] } @{ $session[$s]{answers} }) {
        push @twice, "session $s: $a->[1]" if $a->[1] == $count;
        $count = $a->[1];
        push @runs, $a->[2] if !@runs || $runs[-1] ne $a->[2];
    }
    my $moves = delete $journal{ substr sha256_hex("balancer://tomcats\0$ids->[$s]"), 0, 12 };
    my @told = ($session[$s]{answers}[0][2], map { $_->{to} } @{ $moves || [] });
    push @elsewhere, "session $s: answered by @runs; journal: @told" if "@runs" ne "@told";
    $moves{"$_->{from} $_->{to} $_->{outcome} $_->{epoch}"}++ for @{ $moves || [] };
}
is_deeply \@lost, [], 'no session is lost';
is_deeply \@backward, [], 'no counter goes back or stands still';
is_deeply \@twice, [], 'no count is given twice: what was acknowledged is kept';
is_deeply \@elsewhere, [], 'each is at one member until the journal says that it moved';
is_deeply \%journal, {}, 'nothing else moved';
diag join ', ', map { "$_: $moves{$_}" } sort keys %moves;
my $from = join '|', @victim;
is_deeply [grep { !/^(?:$from) \S+ restored [23]$/ } keys %moves], [], 'all restored, away from the killed members only';
ok scalar(grep { /^$victim[0] \S+ restored 2$/ } keys %moves) && scalar(grep { /^$victim[1] \S+ restored 3$/ } keys %moves),
    'some of them twice';

# ---- and the children ---------------------------------------------------------------------

# Under prefork SIGTERM ends a child in whatever thread it meets: beneath the main one, if that is one of ours.
my ($threads, @open) = (0);
for my $child (split ' ', Daemon::tail_of("/proc/$site->{httpd}{pid}/task/$site->{httpd}{pid}/children", 0)) {
    for my $thread (map { m{/(\d+)\z} } glob "/proc/$child/task/*") {
        next if $thread == $child;
        my ($blocked) = Daemon::tail_of("/proc/$child/task/$thread/status", 0) =~ /^SigBlk:\s*(\w+)/m or next;
        $threads++;
        push @open, "$child/$thread" unless hex(substr $blocked, -4) & 1 << 14;
    }
}
cmp_ok $threads, '>', 1, 'children have threads';
is_deeply \@open, [], 'none but the main one takes SIGTERM';
