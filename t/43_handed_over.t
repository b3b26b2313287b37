# An owner is one when it has been given the session. Until then nobody follows the request that chose it: not when the store
# could not say what to give, not when that request ended before it came to it, not when another httpd has chosen.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Time::HiRes qw(sleep);
use Site;

plan tests => 18;

# two questions to a store that hangs take longer than retry=1: who has just failed is not tried again
my $site = Site->new(members => 2, nodes => 3, timeout => '600ms', balancer => 'SessionHAMemberTimeout 1s');
sub n_of { Site::member_of($_[0]) =~ /(\d+)/; $1 }
sub said { my $r = shift; return [$r->{status}, Site::count_of($r), Site::member_of($r)] }
sub until_up {
    for (1 .. 200) { return if !grep { $_->{state} ne 'up' } @{ $site->status->{stores} }; sleep 0.1 }
    die "the nodes do not come up\n";
}

# A member that slept while its session moved has an old copy. It is all that is left when the store cannot be asked. Nobody
# can help that; but when the store is back, what the client gets is the session.
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $old = n_of($r);
    my $new = 3 - $old;
    $site->tomcat($old)->stop_signal;
    $r = $site->get('/count', cookie => $cookie);
    is_deeply said($r), [200, 2, "tomcat$new"], 'moved, while its member sleeps';
    $cookie = Site::cookie_of($r, $cookie);
    is Site::count_of($site->get('/count', cookie => $cookie)), 3, 'and goes on';
    $site->tomcat($old)->cont;
    sleep 2;
    $site->node($_)->stop for 1 .. 3;
    $site->tomcat($new)->kill9;
    $r = $site->get('/count?peek', cookie => $cookie);
    is $site->status->{journal}[0]{outcome}, 'unavailable', 'its new member dies while the store hangs';
    $site->node($_)->cont for 1 .. 3;
    until_up();
    is_deeply said($site->get('/count?peek', cookie => $cookie)), [200, 3, "tomcat$old"], 'the store is back: the old copy is not shown';
    is_deeply said($site->get('/count', cookie => $cookie, body => '')), [200, 4, "tomcat$old"], 'nor does a POST meet it';
    $site->tomcat($new)->restart;
    sleep 2;
}

# The same with a POST that comes first: it would run on the old copy, and its answer would be thrown away.
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $old = n_of($r);
    my $new = 3 - $old;
    $site->tomcat($old)->stop_signal;
    is_deeply said($r = $site->get('/count', cookie => $cookie)), [200, 2, "tomcat$new"], 'another session is moved';
    $cookie = Site::cookie_of($r, $cookie);
    $site->tomcat($old)->cont;
    sleep 2;
    $site->node($_)->stop for 1 .. 3;
    $site->tomcat($new)->kill9;
    $site->get('/count?peek', cookie => $cookie);
    $site->node($_)->cont for 1 .. 3;
    until_up();
    is_deeply said($site->get('/count', cookie => $cookie, body => '')), [200, 3, "tomcat$old"], 'a POST comes first, and is run on the session';
    $site->tomcat($new)->restart;
    sleep 2;
}

# A node is away, and the member that a session was claimed for has never said a word: its place in the store is empty, and
# the backup is where its predecessor's are.
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $first = n_of($r);
    my $heir = 3 - $first;
    $site->get('/count', cookie => $cookie) for 1 .. 3;
    $site->node(1)->kill9;
    $site->tomcat($heir)->stop_signal;
    $site->tomcat($first)->kill9;
    $r = $site->get('/count', cookie => $cookie, body => '');
    isnt $r->{status}, 200, 'a POST fails with the heir, which hangs';
    $site->tomcat($first)->restart;
    sleep 2;
    is_deeply said($r = $site->get('/count', cookie => $cookie)), [200, 5, "tomcat$first"], 'its first member is back, and empty: the session is found';
    my ($epoch, $session) = @{ $site->status->{journal}[0] }{qw(epoch session)};
    is scalar(grep { /^ha:c:$session\w+:$epoch\z/ } map { $site->node_keys($_) } 2, 3), 2, 'and claimed, by the nodes that are there';
    $site->tomcat($heir)->cont;
    $site->start_node(1);
    until_up();
    sleep 2;
}

# The same in a later epoch: the place of the one that never said a word has what was stored two epochs ago.
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $first = n_of($r);
    my $heir = 3 - $first;
    $site->tomcat($first)->kill9;
    $site->get('/count', cookie => $cookie);
    is_deeply said($r = $site->get('/count', cookie => $cookie)), [200, 3, "tomcat$heir"], 'moved, and two more';
    $cookie = Site::cookie_of($r, $cookie);
    $site->tomcat($first)->restart;
    sleep 2;
    $site->tomcat($first)->stop_signal;
    $site->tomcat($heir)->kill9;
    isnt $site->get('/count', cookie => $cookie, body => '')->{status}, 200, 'a POST fails with the first one, which hangs';
    $site->tomcat($heir)->restart;
    sleep 2;
    is_deeply said($site->get('/count', cookie => $cookie)), [200, 4, "tomcat$heir"], 'what counts is what was stored last';
    $site->tomcat($first)->cont;
    sleep 2;
}

# Who claimed it came to no member that lives; the next request that does brings the session there, and tells of the move.
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $first = n_of($r);
    my $heir = 3 - $first;
    $site->tomcat($heir)->stop_signal;
    $site->tomcat($first)->kill9;
    isnt $site->get('/count', cookie => $cookie)->{status}, 200, 'its member is dead, and the other one hangs';
    $site->tomcat($heir)->cont;
    sleep 2;
    is_deeply said($site->get('/count', cookie => $cookie)), [200, 2, "tomcat$heir"], 'that wakes up';
    is join(' ', @{ $site->status->{journal}[0] }{qw(from to outcome)}), "tomcat$first tomcat$heir restored", 'and the journal has it';
    $site->tomcat($first)->restart;
    sleep 2;
}

# It was given the session, answered one request that needs no backup, and lost its memory before it said anything.
{
    my $ignore = Site->new(like => $site, members => 2, nodes => 3, timeout => '500ms', balancer => "SessionHAIgnore ^/ping\n");
    my $r = $ignore->get('/count');
    my $cookie = Site::cookie_of($r);
    my $first = n_of($r);
    my $heir = 3 - $first;
    $ignore->tomcat($first)->kill9;
    is_deeply [@{ $ignore->get('/ping', cookie => $cookie) }{qw(status body)}], [200, "pong member=tomcat$heir\n"], 'moved by a request that needs no backup';
    $ignore->tomcat($heir)->restart;
    is_deeply said($ignore->get('/count', cookie => $cookie)), [200, 2, "tomcat$heir"], 'its new member has lost it before it said anything';
    $ignore->tomcat($first)->restart;
    sleep 2;
}
