package Faults;
# The randomised fault test: clients count in their sessions (Clients.pm) while faults that a seed draws are done to a
# site (FaultSite.pm); everything is written down, and Checker.pm says what the record proves.
#
#   my $run = Faults->new(seed => 1, seconds => 60, httpds => 1);
#   my $verdict = $run->run;        # Checker's; $run->history: the records; $run->file: where they are, as JSON lines
#
# The same seed draws the same acts, in the same order and with the same pauses, and the same client the same choices;
# when exactly a request meets a fault is the machine's to say.
#
# An act is one fault or two or three at once, of different classes. Between acts everything is made whole: each member
# serves, each httpd says that each node is up, and each session has been acknowledged since. So what an act takes away
# is never more than the promises allow: one member at a time, or the ways of an httpd to some, and for each httpd one of
# the two copies.
use strict;
use warnings;
use JSON::PP ();
use Time::HiRes qw(sleep time);
use Checker;
use Clients;
use Draw;
use FaultSite;

my $retry = 1;              # seconds: Site's retry=1
my $patience = 90;          # until what should become whole again is given up

# What is done and how it is undone; hold: for how long, in seconds. Weights are by class, then within it.
my %class = (member => 45, node => 15, link => 18, storelink => 10, httpd => 12, drain => 6);
my %kind = (
    'member.kill'    => { weight => 5, hold => [0.5, 4], begin => 'member_kill', end => 'member_start' },
    'member.bounce'  => { weight => 3, hold => [0, 0],   begin => 'member_kill', end => 'member_start' },  # before anyone notices
    'member.lost'    => { weight => 2, hold => [0.5, 4], begin => 'member_lose', end => 'member_find' },    # its machine, without a word
    'member.restart' => { weight => 3, hold => [0, 2],   begin => 'member_term', end => 'member_start' },
    'member.hang'    => { weight => 5, hold => [0.2, 5], begin => 'member_hang', end => 'member_wake' },
    'node.kill'      => { weight => 3, hold => [0.5, 4], begin => 'node_kill', end => 'node_start' },
    'node.bounce'    => { weight => 2, hold => [0, 0],   begin => 'node_kill', end => 'node_start' },      # comes back empty
    'node.hang'      => { weight => 3, hold => [0.2, 4], begin => 'node_hang', end => 'node_wake' },
    # one or all httpds do not reach one member or several; one node each, not always the same
    'link.silent'    => { weight => 3, hold => [0.2, 4], begin => sub { part(member => @_, 'silent') }, end => sub { joined(member => @_) } },
    'link.refused'   => { weight => 2, hold => [0.2, 4], begin => sub { part(member => @_, 'refused') }, end => sub { joined(member => @_) } },
    'storelink.silent'  => { weight => 3, hold => [0.2, 4], begin => sub { part(node => @_, 'silent') }, end => sub { joined(node => @_) } },
    'storelink.refused' => { weight => 2, hold => [0.2, 4], begin => sub { part(node => @_, 'refused') }, end => sub { joined(node => @_) } },
    'httpd.graceful' => { weight => 4, hold => [0, 0],   begin => sub { $_[0]->httpd_signal($_[1], 'USR1') } },
    'httpd.restart'  => { weight => 3, hold => [0, 0],   begin => sub { $_[0]->httpd_signal($_[1], 'HUP') } },
    'httpd.stop'     => { weight => 2, hold => [0, 1],   begin => 'httpd_term', end => 'httpd_start' },
    'httpd.kill'     => { weight => 2, hold => [0, 1],   begin => 'httpd_kill', end => 'httpd_start' },
    'drain.member'   => { weight => 1, hold => [1, 5],   begin => sub { drain(1, @_) }, end => sub { drain(0, @_) } },
);

# whom a fault's n counts, where its class does not say so
my %whom = (link => 'member', storelink => 'node', drain => 'member');

sub part { my ($whom, $site, $n, $h, $how) = @_; $site->part($h, $whom . $n, $how) }
sub joined { my ($whom, $site, $n, $h) = @_; $site->join($h, $whom . $n) }
# where an httpd is stopped it knows nothing of it when it is back
sub drain { my ($on, $site, $n) = @_; $site->at_httpd($_, manage => $n, w_status_N => $on) for $site->httpds_up }

sub new {
    my ($class, %a) = @_;
    my $self = bless { seconds => 60, httpds => 1, sessions => 10, say => sub { }, %a }, $class;
    $self->{dir} = Apache::Test::vars('t_logs') . "/faults.$self->{seed}";
    my %only = map { $_ => 1 } split /,/, $self->{only} // '';
    exists $class{$_} or die "no faults of class $_: " . join(', ', sort keys %class) . "\n" for keys %only;
    $self->{weight} = { map { $_ => !%only || $only{$_} ? $class{$_} : 0 } keys %class };
    mkdir $self->{dir} or -d $self->{dir} or die "$self->{dir}: $!";
    return $self;
}
sub file { "$_[0]{dir}/history.jsonl" }
sub history { $_[0]{history} }

# ---- what is drawn ---------------------------------------------------------------------------------------------------------

# An endless list of acts: { pause, faults => [{ kind, n, after, hold }] }.
sub next_act {
    my $self = shift;
    my $d = $self->{draw} ||= Draw->new($self->{seed}, 'acts');
    my %left = %{ $self->{weight} };
    my $act = { pause => $d->between(0.3, 1.5), faults => [] };
    for (1 .. $d->weighted(1 => 45, 2 => 35, 3 => 20)) {
        my @pairs = map { $_ => $left{$_} } grep { $left{$_} } sort keys %left;
        last unless @pairs;
        my $class = $d->weighted(@pairs);
        # one member at a time, whether it is its process or the way to it, and one node
        delete @left{ $class eq 'httpd' ? $class : $class =~ /node|store/ ? qw(node storelink) : qw(member link drain) };
        my $at = $d->between(0, 1);
        # members also one after the other: the heir dies, and the first one has an old copy in its memory
        for (1 .. ($class =~ /^(?:member|link)$/ ? $d->weighted(1 => 6, 2 => 3, 3 => 1) : 1)) {
            my $name = $d->weighted(map { $_ => $kind{$_}{weight} } grep { /^\Q$class\E\./ } sort keys %kind);
            my %fault = (kind => $name, after => $at, hold => $d->between(@{ $kind{$name}{hold} }));
            push @{ $act->{faults} }, map { { %fault, %$_ } } $self->whom($d, $class);
            $at += $fault{hold} + $d->between(0.3, 2);
        }
    }
    return $act;
}

# Whom a fault of this class meets: { n }, or { n, httpd } for each of the ways that are cut.
sub whom {
    my ($self, $d, $class) = @_;
    my $of = $class eq 'httpd' ? $self->{httpds} : $class =~ /node|store/ ? $FaultSite::nodes : $FaultSite::members;
    return { n => 1 + $d->below($of) } unless $class =~ /link/;
    my @cut;
    for my $h ($d->chance(0.3) ? 1 .. $self->{httpds} : 1 + $d->below($self->{httpds})) {
        my @n = 1 .. $of;
        push @cut, map { { httpd => $h, n => splice @n, $d->below(scalar @n), 1 } } 1 .. ($class eq 'link' ? $d->weighted(1 => 6, 2 => 3, 3 => 1) : 1);
    }
    return @cut;
}

# ---- what is done ------------------------------------------------------------------------------------------------------------

sub run {
    my $self = shift;
    my $requests = "$self->{dir}/requests.jsonl";
    unlink $requests;
    my $d = Draw->new($self->{seed}, 'site');
    my @how = ('SessionHADrain ' . $d->one_of(qw(wait move)), 'SessionHAFailback ' . $d->one_of(qw(stay home)));
    $self->{say}->(join ', ', @how);
    my $site = $self->{site} = FaultSite->new(httpds => $self->{httpds}, balancer => join '', map { "$_\n" } @how);
    my @faults;
    my $began = time;
    my $clients = Clients->start(fronts => $site->fronts, seed => $self->{seed}, sessions => $self->{sessions}, file => $requests);
    $self->{requests} = $requests;
    my $stuck = !$self->whole(1);
    while (!$stuck && time < $began + $self->{seconds}) {
        my $act = $self->next_act;
        sleep $act->{pause};
        push @faults, $self->perform($act);
        $stuck = !$self->whole;
    }
    $clients->stop or die "the clients failed\n";
    my %name;
    my @requests = $self->lines_of($requests);
    $name{ $_->{id} } = $_->{s} for grep { defined $_->{id} } reverse @requests;
    my @told = map { $_->{e} eq 'move' ? { %$_, s => $name{ $_->{id} } // "? $_->{id}" } : $_ } $site->told;
    my @ran = $site->ran;
    $site->end;
    $self->{history} = [{ e => 'run', seed => $self->{seed}, how => join(', ', @how), httpds => $self->{httpds}, seconds => $self->{seconds} },
        @requests, @faults, @told, @ran];
    $self->write_down;
    my $verdict = Checker::check($self->{history});
    unshift @{ $verdict->{violations} }, { promise => 'whole', s => '', at => $began + 1e9, text => "after the last fault it did not become whole again in $patience s: $stuck" } if $stuck;
    $verdict->{counts}{seconds} = time - $began;
    return $verdict;
}

# One act; the records of its faults.
sub perform {
    my ($self, $act) = @_;
    my $site = $self->{site};
    my $zero = time;
    my (@events, @records);
    for my $f (@{ $act->{faults} }) {
        my ($class) = $f->{kind} =~ /^(\w+)/;
        my $record = { e => 'fault', n => ++$self->{faults}, kind => $f->{kind}, what => ($whom{$class} // $class) . $f->{n} };
        $record->{httpd} = $f->{httpd} if $f->{httpd};
        $record->{httpd} = $f->{n} if $class eq 'httpd';
        push @records, $record;
        push @events, [$f->{after}, begin => $f, $record], [$f->{after} + $f->{hold}, end => $f, $record];
    }
    for my $event (sort { $a->[0] <=> $b->[0] } @events) {
        my ($due, $which, $f, $record) = @$event;
        my $left = $zero + $due - time;
        sleep $left if $left > 0;
        $record->{begin} = time if $which eq 'begin';
        my $what = $kind{ $f->{kind} }{$which};
        if (ref $what) { $what->($site, @$f{qw(n httpd)}) }
        elsif ($what) { $site->$what($f->{n}) }
        $record->{end} = time if $which eq 'end';
        $self->{say}->(sprintf '%7.2f %s %s %s', time - $^T, $f->{kind}, join(' ', grep { $_ } $f->{httpd} && "httpd$f->{httpd}", $record->{what}), $which) if $which eq 'begin' || $f->{hold};
    }
    return @records;
}

# Until all is well again: nodes are up, and each session has been acknowledged since. 0: it does not come to that.
sub whole {
    my ($self, $at_start) = @_;
    my $until = time + $patience;
    sleep $retry + 0.2 unless $at_start;
    until ($self->{site}->nodes_are_up || $at_start) {
        $self->{why} = 'a node is not up';
        return 0 if time > $until;
        sleep 0.1;
    }
    my $since = time;
    my %waiting = map { $_ => 1 } 1 .. $self->{sessions};
    while (%waiting) {
        if (time > $until) { $self->{why} = 'sessions without an answer: ' . join(' ', sort keys %waiting); return 0 }
        sleep 0.1;
        for my $r ($self->new_requests) {
            my ($seat) = $r->{s} =~ /^s(\d+)/;
            delete $waiting{$seat} if $r->{status} == 200 && $r->{sent} > $since;
        }
    }
    return 1;
}

# ---- what is written down ------------------------------------------------------------------------------------------------------

sub lines_of {
    my ($self, $file) = @_;
    open my $fh, '<', $file or die "$file: $!";
    return map { JSON::PP::decode_json($_) } <$fh>;
}

# what the clients have written since the last call
sub new_requests {
    my $self = shift;
    open my $fh, '<', $self->{requests} or return ();
    seek $fh, $self->{read} // 0, 0;
    my @new;
    while (my $line = <$fh>) {
        last unless $line =~ /\n\z/;
        $self->{read} = tell $fh;
        push @new, JSON::PP::decode_json($line);
    }
    return @new;
}

sub write_down {
    my $self = shift;
    open my $fh, '>', $self->file or die $self->file . ": $!";
    my $json = JSON::PP->new->canonical;
    print $fh $json->encode($_), "\n" for @{ $self->{history} };
    close $fh or die $self->file . ": $!";
}

# The history of an earlier run, judged again.
sub judge_file { my $file = shift; return Checker::check([lines_of(undef, $file)]) }

1;
