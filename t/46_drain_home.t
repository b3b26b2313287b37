# Sessions that move while their member lives: off a draining one, and home again; nothing lost, nothing failed, also
# with requests running.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Time::HiRes qw(sleep time);
use Site;

plan tests => 44;

sub n_of { (Site::member_of($_[0]) // '') =~ /(\d+)/; $1 }

my $site = Site->new(members => 3, nodes => 2);
sub sessions { my $n = shift; map { my $r = $site->get('/count'); { cookie => Site::cookie_of($r), at => n_of($r), n => 1 } } 1 .. $n }
sub count_up {
    my ($failed, $wrong, @s) = (0, 0, @_);
    for my $s (@s) {
        my $r = $site->get('/count', cookie => $s->{cookie}, $s->{n} % 2 ? () : (body => 'x=1'));
        $failed++ if $r->{status} != 200;
        $wrong++ if (Site::count_of($r) // -1) != ++$s->{n};
        $s->{at} = n_of($r);
        $s->{cookie} = Site::cookie_of($r, $s->{cookie});
    }
    return ($failed, $wrong);
}

# with the cookie of before it was moved, as a second window or a slow answer leaves it; a POST: what its answer cannot be
# passed on of is lost
sub post_with {
    my ($s, $cookie, $name, %o) = @_;
    my $r = $site->get('/count', cookie => $cookie, body => 'x=1', %o);
    is $r->{status}, 200, "$name: a POST with the former cookie is not run in the old copy";
    is Site::count_of($r), ++$s->{n}, '... but in the session';
}

# the default: a draining member keeps its sessions
my @s = sessions(9);
$site->manage(1, w_status_N => 1);
my @mine = grep { $_->{at} == 1 } @s;
ok scalar(@mine), 'sessions at tomcat1';
sleep 4;
is_deeply [count_up(@s)], [0, 0], 'wait: nothing lost';
is scalar(grep { $_->{at} == 1 } @mine), scalar(@mine), 'and they stay';
$site->manage(1, w_status_N => 0);

# move
$site = Site->new(like => $site, members => 3, nodes => 2, balancer => 'SessionHADrain move');
@s = sessions(12);
$site->manage(1, w_status_N => 1);
@mine = grep { $_->{at} == 1 } @s;
$_->{first} = $_->{cookie} for @s;
ok scalar(@mine), 'sessions at tomcat1';
is_deeply [count_up(@s)], [0, 0], 'move: the first seconds';
like $site->get('/balancer-manager')->{body}, qr/\(@{[ scalar @mine ]} left\)/, 'balancer-manager says how many are left' or diag scalar @mine;
my ($failed, $wrong) = (0, 0);
for (1 .. 40) {         # the children count for some seconds before the first one goes
    sleep 0.25;
    my ($f, $w) = count_up(@s);
    $failed += $f;
    $wrong += $w;
    last unless grep { $_->{at} == 1 } @s;
}
is_deeply [$failed, $wrong], [0, 0], 'each goes with a request of its own, GET or POST, and its state';
is scalar(grep { $_->{at} == 1 } @s), 0, 'none is left';
like $site->get('/balancer-manager')->{body}, qr/\(0 left\)/, 'and it is said';
my @moves = grep { $_->{from} eq 'tomcat1' } @{ $site->status->{journal} };
is scalar(@moves), scalar(@mine), 'one move each';
is_deeply [sort keys %{ { map { $_->{cause} => 1 } @moves } }], ['drained'], 'drained';
is_deeply [sort keys %{ { map { $_->{outcome} => 1 } @moves } }], ['restored'], 'restored';
is_deeply [count_up(@s)], [0, 0], 'and on';
$site->manage(1, w_status_N => 0);
sleep 0.3;
post_with($mine[0], $mine[0]{first}, 'no drain any more, and no error ever');

# under requests of the same session that are running
my $x;
for (1 .. 30) { ($x) = sessions(1); last if $x->{at} == 2 }
$site->manage(2, w_status_N => 1);
sleep 0.3;
$site->get('/count?peek', cookie => $x->{cookie}) for 1 .. 8;
sleep 0.3;
my @slow = map { $site->send_request("/slow?ms=5000&$_", cookie => $x->{cookie}) } 1 .. 3;
sleep 4;
my $r = $site->get('/count', cookie => $x->{cookie});
my @r = map { Site::read_answer($_) } @slow;
is join(' ', map { $_->{status} } @r, $r), '200 200 200 200', 'three requests are running when a fourth moves the session: all answered';
is_deeply [sort { $a <=> $b } map { Site::count_of($_) } @r, $r], [2 .. 5], 'none of the updates is lost';
isnt n_of($r), 2, 'moved after they had ended';
is Site::count_of($site->get('/count', cookie => $x->{cookie})), 6, 'and on';
$site->manage(2, w_status_N => 0);

# home
$site = Site->new(like => $site, members => 3, nodes => 2, balancer => "SessionHAFailback home rate=4\nSessionHADrain move");
@s = sessions(15);
@mine = grep { $_->{at} == 3 } @s;
ok scalar(@mine) >= 3, 'sessions at tomcat3';
($failed, $wrong) = (0, 0);
my $until = sub {
    my $there = shift;
    for (my $end = time + 40; time < $end && grep { $there->() } @mine;) {
        my ($f, $w) = count_up(@mine);
        $failed += $f; $wrong += $w;
        sleep 0.3;
    }
    return scalar grep { $there->() } @mine;
};
$site->manage(3, w_status_N => 1);
is $until->(sub { $_->{at} == 3 }), 0, 'drained: they leave';
$site->manage(3, w_status_N => 0);
is $until->(sub { $_->{at} != 3 }), 0, 'not any more, and no error ever: they go home';
is_deeply [$failed, $wrong], [0, 0], 'nothing lost on either way';
$site->tomcat(3)->kill9;
is_deeply [count_up(@mine)], [0, 0], 'killed: they are moved';
is scalar(grep { $_->{at} == 3 } @mine), 0, 'all of them';
$_->{away} = $_->{cookie} for @mine;
$site->tomcat(3)->restart;
($failed, $wrong) = (0, 0);
my $bound = time + 40;
while (time < $bound && grep { $_->{at} != 3 } @mine) {
    $site->get('/ping');        # somebody new: stock tries the member again
    my ($f, $w) = count_up(@mine);
    $failed += $f; $wrong += $w;
    sleep 0.3;
}
is scalar(grep { $_->{at} != 3 } @mine), 0, 'back: all go home';
is_deeply [$failed, $wrong], [0, 0], 'nothing lost on the way';
ok scalar(grep { $_->{cause} eq 'home' } @{ $site->status->{journal} }) >= @mine, 'the journal says so';
is_deeply [count_up(@s)], [0, 0], 'and on';
post_with($mine[0], $mine[0]{away}, 'home again');
my @others = grep { my $s = $_; !grep { $_ == $s } @mine } @s;
is scalar(grep { $_->{at} == 3 } @others), 0, 'who was never there does not go there';

# two httpds, and only one of them drains the member
$site = Site->new(like => $site, members => 3, nodes => 2, balancer => 'SessionHADrain move');
my $port = $site->second_httpd;
for (1 .. 30) { ($x) = sessions(1); last if $x->{at} == 2 }
my $first = $x->{cookie};
is Site::count_of($site->get('/count', cookie => $first, port => $port)), ++$x->{n}, 'two httpds know the session';
$site->manage(2, w_status_N => 1);
for (1 .. 40) { sleep 0.25; ($failed, $wrong) = count_up($x); last if $failed || $wrong || $x->{at} != 2 }
isnt $x->{at}, 2, 'the one that drains its member has moved it';
post_with($x, $first, 'the other one is told', port => $port);
$site->manage(2, w_status_N => 0);

# the other one's requests are running when the session is moved
for (1 .. 30) { ($x) = sessions(1); last if $x->{at} == 3 }
$site->manage(3, w_status_N => 1);
sleep 0.3;
$site->get('/count?peek', cookie => $x->{cookie}, port => $_) for ($site->{port}, $port) x 8;
sleep 3.6;
@slow = map { $site->send_request("/slow?ms=1500&$_", cookie => $x->{cookie}, body => 'x=1', port => $port) } 1 .. 2;
sleep 0.5;
my $mover = $site->send_request('/count', cookie => $x->{cookie});
sleep 0.3;
my @late = map { $site->send_request('/count', cookie => $x->{cookie}, body => 'x=1', port => $port) } 1 .. 2;
@r = map { Site::read_answer($_) } @slow, $mover, @late;
is join(' ', map { $_->{status} } @r), '200 200 200 200 200', 'POSTs through the other httpd, that are running and that come meanwhile: all answered';
is_deeply [sort { $a <=> $b } map { Site::count_of($_) } @r], [2 .. 6], 'none of the updates is lost';
isnt n_of($r[2]), 3, 'moved';
is Site::count_of($site->get('/count', cookie => $x->{cookie}, port => $port)), 7, 'and on';
$site->manage(3, w_status_N => 0);

# streams that are open do not hold the session: what they did to it was told when they began
for (1 .. 30) { ($x) = sessions(1); last if $x->{at} == 1 }
$site->manage(1, w_status_N => 1);
sleep 0.3;
$site->get('/count?peek', cookie => $x->{cookie}, port => $_) for ($site->{port}, $port) x 8;
my @streams = map { $site->send_request('/events?ms=1000&times=30', cookie => $x->{cookie}, port => $_) } $site->{port}, $port;
sleep 3.6;
$r = $site->get('/count', cookie => $x->{cookie});
isnt n_of($r), 1, 'moved while two streams are open';
is Site::count_of($r), 4, 'with what they did';
close $_ for @streams;
$site->manage(1, w_status_N => 0);

# stay, the default
$site = Site->new(like => $site, members => 3, nodes => 2);
@mine = grep { $_->{at} == 1 } sessions(6);
$site->tomcat(1)->kill9;
count_up(@mine);
$site->tomcat(1)->restart;
sleep 5;
is_deeply [count_up(@mine)], [0, 0], 'stay';
is scalar(grep { $_->{at} == 1 } @mine), 0, 'where they were moved';
