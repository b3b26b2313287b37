# Two copies of each session on three memcached. Under load one node is killed and started again, empty; when it has its
# copies again the next one is killed, and a member while it is away: nothing that was acknowledged is lost. Then both
# nodes of some sessions at once: those are lost, each is counted and logged as missing, and no older copy takes its place.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Digest::SHA qw(sha256_hex);
use JSON::PP ();
use POSIX ();
use Time::HiRes qw(sleep time);
use Site;

my ($counters, $readers, $clients) = (30, 6, 3);
plan tests => 21;

my $site = Site->new(members => 3, nodes => 3, conf => "SessionHACopies 2\nSessionHAJournal 2000");
# those that are only read say how long they may be idle: the Valve tells them again each quarter of it
my @session = map {
    my ($n, $cookie, $r) = $_;
    $cookie = Site::cookie_of($site->get('/max?seconds=8')) if $n >= $counters;
    $r = $site->get('/count', cookie => $cookie);
    $cookie = Site::cookie_of($r, $cookie);
    my ($id) = $cookie =~ /=([^.]+)/;
    { cookie => $cookie, id => $id, count => 1, member => Site::member_of($r), key => sha256_hex("balancer://tomcats\0$id") }
} 0 .. $counters + $readers - 1;

# ---- the load: each process asks for its sessions one after the other ------------------------------------

sub load {
    my ($file, @mine) = @_;
    my ($stop, @wrong, %requests) = (0);
    local $SIG{TERM} = sub { $stop = 1 };
    until ($stop) {
        for my $n (@mine) {
            my $s = $session[$n];
            my $r = $site->get($n < $counters ? '/count' : '/count?peek', cookie => $s->{cookie});
            my ($count, $id) = (Site::count_of($r) // -1, $r->{body} =~ /\bid=([^.\s]+)/);
            $s->{count}++ if $n < $counters;
            push @wrong, sprintf '%.3f: session %d: status %s, %s for %s, id %s', time, $n, $r->{status}, $count, $s->{count},
                ($id // '') eq $s->{id} ? 'the same' : 'another'
                if $r->{status} != 200 || $count != $s->{count} || ($id // '') ne $s->{id};
            $s->{count} = $count;
            $s->{member} = Site::member_of($r) // $s->{member};
            $s->{cookie} = Site::cookie_of($r, $s->{cookie});
            $requests{ $n < $counters ? 'count' : 'peek' }++;
            sleep 0.005;
        }
    }
    open my $fh, '>', $file or die "$file: $!";
    print $fh JSON::PP::encode_json([\%requests, \@wrong, { map { $_ => $session[$_] } @mine }]);
    close $fh or die "$file: $!";
}

sub start_load {
    return map {
        my $k = $_;
        defined(my $pid = fork) or die "fork: $!";
        if (!$pid) {
            eval { load("$site->{dir}/load.$k", grep { $_ % $clients == $k } 0 .. $#session); 1 } or print STDERR $@;
            POSIX::_exit(0);
        }
        $pid;
    } 0 .. $clients - 1;
}

sub stop_load {
    my (%requests, @wrong);
    kill TERM => @_;
    waitpid $_, 0 for @_;
    for my $k (0 .. $clients - 1) {
        open my $fh, '<', "$site->{dir}/load.$k" or die "the load left nothing: $!";
        my ($n, $w, $s) = @{ JSON::PP::decode_json(join '', <$fh>) };
        $requests{$_} += $n->{$_} for keys %$n;
        push @wrong, @$w;
        $session[$_] = $s->{$_} for keys %$s;
    }
    return (\%requests, \@wrong);
}

# ---- what the nodes have: the newest version of each session at each of them -------------------------------

sub versions {
    my %at;
    for my $node (1 .. 3) {
        for my $key (grep { /^ha:b:[0-9a-f]{64}(?::2)?\z/ } $site->node_keys($node)) {
            my ($epoch, $seq) = unpack 'x8 Q> Q>', $site->node_value($node, $key) // next;
            my $v = $epoch * 1e9 + $seq;
            my $its = \$at{ (split /:/, $key)[2] }{$node};
            $$its = $v if $v > ($$its // 0);
        }
    }
    return \%at;
}
sub newest { return (sort { $b <=> $a } values %{ $_[0] || {} })[0] // 0 }

# until each session has two copies that are as new as what it had when the node came back
sub copies_are_back {
    my ($node) = @_;
    my $then = versions();
    my ($began, @less) = time;
    while (time < $began + 20) {
        my $now = versions();
        @less = grep { my $n = newest($then->{$_}); (grep { $_ >= $n } values %{ $now->{$_} || {} }) < 2 } map { $_->{key} } @session;
        last if !@less;
        sleep 0.2;
    }
    is @less, 0, sprintf 'node %d came back empty: after %.1f s each session has two copies again', $node, time - $began;
}

sub all_up {
    for (1 .. 100) { last unless grep { $_->{state} ne 'up' } @{ $site->status->{stores} }; sleep 0.1 }
    is_deeply [map { $_->{state} } @{ $site->status->{stores} }], [qw(up up up)], 'all nodes are up';
}

my @load = start_load();
for my $node (1, 2) {
    sleep 1;
    $site->node($node)->kill9;
    if ($node == 2) {       # the first one is back before anyone has written elsewhere
        sleep 1;
        # what it had on two nodes is on one now, and that was empty a moment ago
        my ($n) = $session[0]{member} =~ /(\d)/;
        $site->tomcat($n)->kill9;
        sleep 2;
        $site->tomcat($n)->restart;
    }
    $site->start_node($node);
    all_up();
    copies_are_back($node);
}
my ($requests, $wrong) = stop_load(@load);
diag "$requests->{count} counts and $requests->{peek} looks";
diag $_ for @$wrong > 10 ? @$wrong[0 .. 9] : @$wrong;
cmp_ok $requests->{count}, '>', 10 * $counters, 'there was load';
cmp_ok $requests->{peek}, '>', 10 * $readers, 'and reading';
is @$wrong, 0, 'no request failed, no count was lost, no session was another';
my $before = $site->status;
my %outcomes;
$outcomes{ $_->{outcome} }++ for @{ $before->{journal} };
is_deeply [keys %outcomes], ['restored'], 'what the member had went on at others';

# ---- both at once --------------------------------------------------------------------------------------------

my $at = versions();
my %of;
for my $s (@session) {
    my $its = $at->{ $s->{key} };
    my @nodes = grep { $its->{$_} == newest($its) } sort keys %$its;
    push @{ $of{ $s->{member} }{ "@nodes" eq '1 2' ? 'lost' : 'kept' } }, $s;
    $s->{older} = "@nodes" eq '1 2' && $its->{3};
}
sub least { my $m = shift; my ($n) = sort { $a <=> $b } map { scalar @{ $of{$m}{$_} || [] } } qw(lost kept); return $n }
my ($victim) = sort { least($b) <=> least($a) } sort keys %of;
my ($lost, $kept) = map { $of{$victim}{$_} || [] } qw(lost kept);
cmp_ok @$lost, '>', 0, @$lost . " sessions of $victim have both copies on nodes 1 and 2";
cmp_ok @$kept, '>', 0, @$kept . ' have one on node 3';
my @older = grep { $_->{older} } @$lost;
cmp_ok @older, '>', 0, @older . ' of the first have an older copy there, from when a node was away';

$site->node($_)->kill9 for 1, 2;
$site->start_node($_) for 1, 2;
all_up();
my ($n) = $victim =~ /(\d)/;
$site->tomcat($n)->kill9;
my (@new, @old);
for my $s (@$lost, @$kept) {
    my $r = $site->get('/count', cookie => $s->{cookie});
    my ($id) = $r->{body} =~ /\bid=([^.\s]+)/;
    push @new, $s if $r->{status} == 200 && Site::count_of($r) == 1 && $id ne $s->{id};
    push @old, $s if $r->{status} == 200 && Site::count_of($r) == $s->{count} + 1 && $id eq $s->{id};
}
is scalar(@old), scalar(@$kept), 'both nodes and their member killed: the others go on';
is_deeply [map { $_->{key} } @new], [map { $_->{key} } @$lost], 'and these begin anew, all of them';
my $after = $site->status;
my $sum = sub { my ($status, $what) = @_; my $n = 0; $n += $_->{$what} for @{ $status->{balancers}[0]{members} }; return $n };
is $sum->($after, 'missing') - $sum->($before, 'missing'), @$lost, 'each is counted as missing';
is $sum->($after, 'restored') - $sum->($before, 'restored'), @$kept, 'the others as restored';
my %told = map { $_->{session} => 1 } grep { $_->{outcome} eq 'missing' } @{ $after->{journal} };
is_deeply [sort keys %told], [sort map { substr $_->{key}, 0, 12 } @$lost], 'the journal names them';
my $log = $site->error_log;
is scalar(() = $log =~ /session [0-9a-f]{12} moved from $victim to tomcat\d \(\w+\): missing/g), @$lost, 'the log has a line for each';
is scalar(() = $log =~ /: missing, .*: the copy that is left is older than what was acknowledged/g), @older, 'and says why, if there was an older copy';
my ($total) = map { my $n = 0; $n += $_ for $_ =~ /^session_ha_failovers_total\{[^}]*outcome="missing"\} (\d+)/mg; $n }
    $site->get('/session-ha-status?format=prometheus')->{body};
is $total, @$lost, 'and so has Prometheus';
my ($left) = grep { $_->{older} } @$lost;
unlike $log, qr/$left->{id}/, 'no id is in the log';
