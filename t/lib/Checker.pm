package Checker;
# What a recorded history proves. check(\@history) is a pure function: it starts nothing, reads no file and knows no
# clock, so that bad histories can be made by hand (t/80_checker.t). A history is a list of records, in any order;
# times are seconds, of one clock:
#
#   { e => 'run', ... }                                      how it was made; retry_max, slack (seconds) are read here
#   { e => 'request', rid, s, method, how, httpd, sent, done, status, why,      one request as its client saw it;
#     value, member, id }                                    the last three only of an answer; s: the session's name
#   { e => 'ran', rid, value, member, at }                   what the application itself wrote down: it ran that request
#   { e => 'fault', n, kind, what, httpd, begin, end }       what was done to whom; end: all was well again
#   { e => 'move', s, httpd, epoch, from, to, cause, outcome, began, at }   what an httpd said of a session
#   { e => 'condemned', httpd, at, until }                   an httpd took a member for hung that was only slow
#
# The answer: { violations => [{ promise, s, text, at }], strict => [the same], counts => {...} }. A violation breaks a
# promise of the module (P1 to P5). Strict are the GETs that failed although no httpd was restarted.
use strict;
use warnings;
use List::Util qw(max min);

# what a fault is to the requests beside it: only these may fail one
my %harm = (member => 1, link => 1, httpd => 1, node => 0, storelink => 0, drain => 0);

sub class_of { my ($class) = $_[0]{kind} =~ /^(\w+)\./; return $class }

sub answered { my $r = shift; return $r->{status} == 200 && defined $r->{value} }

sub check {
    my @history = @{ shift() };
    my %of;
    push @{ $of{ $_->{e} } }, $_ for @history;
    my $self = bless {
        violations => [], strict => [], counts => {},
        retry_max => 1, slack => 5, settle => 3,
        %{ $of{run} ? $of{run}[0] : {} },
        faults => [sort { $a->{begin} <=> $b->{begin} } @{ $of{fault} || [] }],
        condemned => $of{condemned} || [],
    };
    my (%session, %ran, %moves);
    push @{ $session{ $_->{s} } }, $_ for @{ $of{request} || [] };
    push @{ $ran{ $_->{rid} } }, $_ for @{ $of{ran} || [] };
    push @{ $moves{ $_->{s} } }, $_ for @{ $of{move} || [] };
    for my $s (sort keys %session) {
        my @requests = sort { $a->{sent} <=> $b->{sent} } @{ $session{$s} };
        # when it was run, if the application says so: later than it was sent, so more is known to come before it
        for my $r (grep { answered($_) } @requests) {
            my ($run) = grep { $_->{value} == $r->{value} && $_->{member} eq $r->{member} } @{ $ran{ $r->{rid} } || [] };
            $r->{from} = max($r->{sent}, $run ? $run->{at} : 0);
        }
        $self->is_the_same_session($s, @requests);
        $self->never_goes_back($s, @requests);
        $self->given_once($s, @requests);
        $self->runs_once($s, \%ran, @requests);
        $self->gaps_are_explained($s, \%ran, @requests);
        $self->one_owner($s, $moves{$s} || [], @requests);
        $self->may_fail($s, $_) for grep { !answered($_) } @requests;
    }
    my $c = $self->{counts};
    $c->{sessions} = keys %session;
    $c->{requests} = @{ $of{request} || [] };
    $c->{answered} = grep { answered($_) } @{ $of{request} || [] };
    $c->{faults}{ $_->{kind} }++ for @{ $self->{faults} };
    $c->{moves} = @{ $of{move} || [] };
    return { map { $_ => $self->{$_} } qw(violations strict counts) };
}

sub broken {
    my ($self, $promise, $s, $at, $text) = @_;
    push @{ $self->{violations} }, { promise => $promise, s => $s, at => $at, text => $text };
}

# ---- P2, P3: what was acknowledged stays -------------------------------------------------------------------------

sub is_the_same_session {
    my ($self, $s, @requests) = @_;
    my ($first) = grep { answered($_) } sort { $a->{done} <=> $b->{done} } @requests;
    for my $r (grep { answered($_) && $_->{id} ne $first->{id} } @requests) {
        $self->broken('P3', $s, $r->{done}, "$r->{rid}: answered by another session ($r->{id}, value $r->{value}, $r->{member}): the session is lost");
    }
}

# What is run after an answer has come sees more than that answer.
sub never_goes_back {
    my ($self, $s, @requests) = @_;
    my @done = sort { $a->{done} <=> $b->{done} } grep { answered($_) } @requests;
    my ($seen, %had);
    for my $r (sort { $a->{from} <=> $b->{from} } grep { answered($_) } @requests) {
        while (@done && $done[0]{done} < $r->{from}) {
            my $d = shift @done;
            $seen = $d if !$seen || $d->{value} > $seen->{value};
            $had{ $d->{member} } = 1;
        }
        next if !$seen || $r->{value} > $seen->{value};
        my $stale = $r->{member} ne $seen->{member} && $had{ $r->{member} };
        $self->broken($stale ? 'P2' : 'P3', $s, $r->{done}, "$r->{rid}: $r->{value} at $r->{member} after $seen->{value} at $seen->{member} ($seen->{rid}): "
            . ($stale ? 'stale' : 'an acknowledged update is gone'));
    }
}

# No value is answered twice: it would mean two copies of the session, or one that was put back.
sub given_once {
    my ($self, $s, @requests) = @_;
    my %by;
    for my $r (sort { $a->{done} <=> $b->{done} } grep { answered($_) } @requests) {
        my $other = $by{ $r->{value} };
        $self->broken($other->{member} ne $r->{member} ? 'P1' : 'P3', $s, $r->{done},
            "$r->{value} is answered twice: $other->{rid} at $other->{member}, $r->{rid} at $r->{member}") if $other;
        $by{ $r->{value} } ||= $r;
    }
}

# ---- P5: once ----------------------------------------------------------------------------------------------------

sub runs_once {
    my ($self, $s, $ran, @requests) = @_;
    for my $r (@requests) {
        my @ran = @{ $ran->{ $r->{rid} } || [] };
        my $where = join ', ', map { "$_->{member} ($_->{value})" } @ran;
        my $most = $r->{method} eq 'POST' ? 1 : 1 + $self->{retry_max};
        $self->{counts}{repeated}++ if @ran > 1;
        $self->broken('P5', $s, $r->{done}, "$r->{rid}: a $r->{method} was run " . @ran . " times: $where") if @ran > $most;
        next unless answered($r);
        $self->broken('P5', $s, $r->{done}, "$r->{rid}: answered with $r->{value} from $r->{member}, but the application says: " . ($where || 'not run'))
            unless grep { $_->{value} == $r->{value} && $_->{member} eq $r->{member} } @ran;
    }
}

# A value nobody was answered was counted by a request whose answer did not come, or by the first run of a repeated one.
# One run explains one value at most, so this is also: answered + unanswered is at least the last value.
sub gaps_are_explained {
    my ($self, $s, $ran, @requests) = @_;
    my (%answered, %spare);
    $answered{ $_->{value} } = $_ for grep { answered($_) } @requests;
    for my $r (@requests) {
        for my $run (@{ $ran->{ $r->{rid} } || [] }) {
            $spare{ $run->{value} } ||= $r unless answered($r) && $r->{value} == $run->{value};
        }
    }
    for my $value (1 .. max(0, keys %answered)) {
        next if $answered{$value};
        $self->{counts}{gaps}++;
        next if $spare{$value};
        $self->broken('P5', $s, 0, "$value was never answered, and no request without an answer counted it");
    }
}

# ---- P1: one owner -----------------------------------------------------------------------------------------------

# Answers in the order of their values: the member changes only where an httpd says that the session moved there,
# after it had come to the member before. It says so when the request that moved it has ended, which may be after the
# first answer of the new member to another one. An epoch has one owner, whoever says it.
sub one_owner {
    my ($self, $s, $moves, @requests) = @_;
    my %owner;
    for my $m (@$moves) {
        my $other = $owner{ $m->{epoch} } ||= $m;
        $self->broken('P1', $s, $m->{at}, "epoch $m->{epoch} has two owners: httpd$other->{httpd} says $other->{to}, httpd$m->{httpd} says $m->{to}")
            if $other->{to} ne $m->{to};
    }
    my ($here, $since, $last);
    for my $r (sort { $a->{value} <=> $b->{value} } grep { answered($_) } @requests) {
        if (defined $here && $r->{member} ne $here) {
            my @may = grep { $_->{sent} <= $r->{done} && $_->{done} >= $since } @requests;
            my $late = max(map { $_->{done} } $r, @may) + $self->{slack};
            if (grep { $_->{to} eq $r->{member} && $_->{at} >= $since && $_->{at} <= $late } @$moves) { }
            elsif ($self->could_not_tell($since, $r->{done}, @may) || moved_on($since, $r->{done}, $moves)) { $self->{counts}{untold}++ }
            else { $self->broken('P1', $s, $r->{done}, "$last->{value} at $here ($last->{rid}), $r->{value} at $r->{member} ($r->{rid}): nobody says that the session moved") }
        }
        ($here, $since) = ($r->{member}, $r->{sent}) if !defined $here || $r->{member} ne $here;
        $last = $r;
    }
}

# An httpd that ended between the two points, or under one of the requests, could not say that it had moved the session.
sub could_not_tell {
    my ($self, $from, $to, @requests) = @_;
    for my $f (grep { $_->{kind} =~ /^httpd\.(?!graceful)/ } @{ $self->{faults} }) {
        return 1 if $f->{begin} <= $to && $f->{end} >= $from;
        return 1 if grep { !answered($_) && $_->{httpd} == $f->{httpd} && $_->{sent} <= $f->{end} && $_->{done} >= $f->{begin} } @requests;
    }
    return 0;
}

# A request that moved it more than once tells where to in the end: the epochs before that one are nobody's, and the member of
# one of them may have answered another httpd.
sub moved_on {
    my ($from, $to, $moves) = @_;
    my %told = map { $_->{epoch} => 1 } @$moves;
    return grep { ($_->{began} // $_->{at}) <= $to && $_->{at} >= $from && $_->{epoch} > 2 && !$told{ $_->{epoch} - 1 } } @$moves;
}

# ---- P4, and what may fail at all ------------------------------------------------------------------------------------

# The faults beside a request; a fault is felt a little longer than it lasts (a member is asked again after its retry
# time), and a request that is already on its way when it begins is hit by it too.
sub beside {
    my ($self, $r) = @_;
    return grep { $_->{begin} <= $r->{done} && $_->{end} + $self->{settle} >= $r->{sent} }
        @{ $self->{faults} }, map { { kind => 'member.slow', what => 'slow', begin => $_->{at}, end => $_->{until} // $_->{at} } } @{ $self->{condemned} };
}

sub may_fail {
    my ($self, $s, $r) = @_;
    my @beside = $self->beside($r);
    my @harm = grep { $harm{ class_of($_) } } @beside;
    my $causes = join '+', sort keys %{ { map { $_->{kind} => 1 } @harm ? @harm : @beside } };
    my $how = "$r->{method} $r->{how} " . ($r->{status} || $r->{why} || 'closed');
    $self->{counts}{failed}{$how}{ $causes || 'nothing' }++;
    my $text = sprintf '%s: %s failed (%s) after %.3f s, during: %s', $r->{rid}, $how, $r->{why} // '-', $r->{done} - $r->{sent}, $causes || 'nothing';
    if (!@harm) {
        $self->broken('P4', $s, $r->{done}, $text);
        return;
    }
    return if $r->{method} eq 'POST';
    return if grep { class_of($_) eq 'httpd' } @harm;
    # both members that a GET may be sent to died under it
    return if keys %{ { map { $_->{what} => 1 } @harm } } > $self->{retry_max};
    push @{ $self->{strict} }, { promise => 'strict', s => $s, at => $r->{done}, text => $text };
}

# ---- for people --------------------------------------------------------------------------------------------------------

# The records around a violation: the session's requests, moves and runs, and all faults, in order.
sub excerpt {
    my ($history, $v, $lines) = @_;
    my %rid = map { $_->{rid} => 1 } grep { $_->{e} eq 'request' && $_->{s} eq $v->{s} } @$history;
    my $when = sub { my $r = shift; $r->{done} // $r->{at} // $r->{begin} // 0 };
    my @near = grep { $_->{e} eq 'fault' || $_->{e} eq 'condemned' || ($_->{s} // '') eq $v->{s} || ($_->{e} eq 'ran' && $rid{ $_->{rid} }) } @$history;
    @near = sort { $when->($a) <=> $when->($b) } grep { $_->{e} ne 'run' } @near;
    my @before = grep { $when->($_) <= $v->{at} } @near;
    my @after = grep { $when->($_) > $v->{at} } @near;
    splice @before, 0, max(0, @before - $lines);
    splice @after, min(scalar @after, 3);
    my $t0 = min(map { $when->($_) } @near) // 0;
    return map { my $r = $_; join ' ', sprintf('%8.3f', $when->($r) - $t0), $r->{e},
        map { /^(?:sent|done|at|begin|end)$/ ? sprintf('%s=%.3f', $_, $r->{$_} - $t0) : "$_=$r->{$_}" }
            grep { $_ ne 'e' && $_ ne 's' && defined $r->{$_} } sort keys %$r } @before, @after;
}

1;
