# Two httpds before the same members and the same store agree who owns a session: when both meet the failure, when
# only one does, and when the store is gone.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Time::HiRes qw(sleep);
use Site;

plan tests => 38;

sub n_of { (Site::member_of($_[0]) // '') =~ /(\d+)/; $1 }
sub statuses { join ' ', map { $_->{status} } @_ }
sub members { my %m = map { (Site::member_of($_) // 'none') => 1 } @_; join ' ', sort keys %m }

my $site = Site->new(members => 3, nodes => 2, tomcat => { context_xml =>
    '<Valve className="org.apache.catalina.valves.AccessLogValve" prefix="access" suffix="" fileDateFormat="" pattern="%m %s" buffered="false"/>' }, conf => 'SessionHAMemberTimeout 400ms', retry => 'retry=1');
my @port = ($site->{port}, $site->second_httpd);
my $turn = 0;
sub both { my ($n, $path, %o) = @_; my @s = map { $site->send_request($path, %o, port => $port[$_ % 2]) } 1 .. $n; map { Site::read_answer($_) } @s }

for my $round (1 .. 3) {
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    is Site::count_of($site->get('/count', cookie => $cookie, port => $port[1])), 2, "round $round: one session through both";
    $site->tomcat($n)->kill9;
    my @r = both(20, '/count', cookie => $cookie);
    is statuses(@r), join(' ', (200) x 20), 'killed: twenty at once through both, all answered';
    is scalar(split / /, members(@r)), 1, 'by one member' or diag members(@r);
    is_deeply [sort { $a <=> $b } map { Site::count_of($_) // -1 } @r], [3 .. 22], 'twenty updates';
    $site->tomcat($n)->restart;
    sleep 2;
}

# one httpd has not seen the failure
for my $wait (0, 2) {
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    $site->get('/count', cookie => $cookie, port => $port[1]);
    $site->tomcat($n)->stop_signal;
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), 3, 'hung, and moved by the one';
    my $heir = n_of($r);
    $site->tomcat($n)->cont;
    sleep $wait;
    $r = $site->get('/count', cookie => $cookie, port => $port[1]);
    is $r->{status}, 200, $wait ? 'awake: the other one has been told' : 'awake at once: the other one has not been told yet';
    is Site::count_of($r), 4, 'the old cookie through it does not meet the stale copy';
    is n_of($r), $heir, 'but the session';
    sleep 2;
}

# an error that both have heard of is over: they do not tell it each other again and again
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $given = sub { open my $fh, '<', $site->tomcat(n_of($r))->base . '/logs/access' or die "access: $!"; scalar grep { /^PUT/ } <$fh> };
    $site->get('/count', cookie => $cookie) for 1 .. 2;
    my $before = $given->();
    for (1 .. 12) { sleep 0.3; $site->get('/count?peek', cookie => $cookie) }
    is $given->() - $before, 0, 'the member is not given its session again and again';
    $site->tomcat(n_of($r))->kill9;
    $site->tomcat(n_of($r))->restart;
    sleep 1;
    is Site::count_of($site->get('/count', cookie => $cookie)), 4, 'and after the next error, it is once more';
}

# the client hears of a move before the httpd does: its POST does not go to the former owner, whose answer could not be passed on
{
    my $without = sub {         # what is at this member is moved by the first httpd, which counts that as an error of it
        my ($n, $cookie) = @_;
        $site->manage($n, w_status_D => 1);
        my $r = $site->get('/count', cookie => $cookie);
        $site->manage($n, w_status_D => 0);
        return $r;
    };
    my %at;
    for (1 .. 60) { my $r = $site->get('/count'); $at{ n_of($r) } //= Site::cookie_of($r); last if keys %at == 3 }
    $without->($_, $at{$_}) for sort keys %at;
    my $r = $site->get('/count');
    my $n = n_of($r);
    $r = $without->($n, Site::cookie_of($r));
    my $former = n_of($r);
    isnt $former, $n, 'the first httpd has moved it, and knows where it is';
    my $cookie = Site::cookie_of($r);
    $site->tomcat($former)->stop_signal;
    $r = $site->get('/count', cookie => $cookie, port => $port[1]);
    $site->tomcat($former)->cont;
    my $heir = n_of($r);
    $r = $site->get('/count', cookie => Site::cookie_of($r), body => 'x=1');
    is $r->{status}, 200, 'the second one has moved it on, and the client goes back to the first one with a POST';
    is Site::count_of($r), 4, 'it runs in the session';
    is n_of($r), $heir, 'at its member';
    sleep 2;
}

# what one httpd knows is old, and the claims are gone, as they are when they have expired
{
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    is Site::count_of($site->get('/count', cookie => $cookie, port => $port[1])), 2, 'both know the session';
    $site->tomcat($n)->kill9;
    $r = $site->get('/count', cookie => $cookie);
    my $heir = n_of($r);
    isnt $heir, $n, 'one of them has moved it';
    my $removed = 0;
    for my $node (1, 2) {
        $removed += $site->ask_node($node, "delete $_\r\n", qr/\r\n/) =~ /DELETED/ for grep { /^ha:c:/ } $site->node_keys($node);
    }
    cmp_ok $removed, '>=', 2, 'its claim is removed from both nodes';
    my @r = map { $site->get('/count', cookie => $cookie, port => $_) } @port[1, 1, 0, 1];
    is join(' ', map { n_of($_) } @r), join(' ', ($heir) x 4), 'the other one claims it, and finds where it lives';
    is join(' ', map { Site::count_of($_) } @r), '4 5 6 7', 'nothing is lost';
    $site->tomcat($n)->restart;
    sleep 2;
}

# no store: both choose alike
{
    my @cookies;
    for (1 .. 12) { push @cookies, Site::cookie_of($site->get('/count')) }
    my %at = map { $_ => n_of($site->get('/count?peek', cookie => $_)) } @cookies;
    $site->node($_)->kill9 for 1, 2;
    my $n = $at{ $cookies[0] };
    $site->tomcat($n)->kill9;
    my ($split, $failed) = (0, 0);
    for my $cookie (grep { $at{$_} == $n } @cookies) {
        my @r = both(6, '/count', cookie => $cookie);
        $failed += grep { $_->{status} != 200 } @r;
        $split++ if 1 < split / /, members(@r);
    }
    is $failed, 0, 'the store is gone and a member is killed: every request is answered';
    is $split, 0, 'both httpds choose the same member for a session';
    $site->start_node($_) for 1, 2;
    $site->tomcat($n)->restart;
    sleep 3;
    my $r = $site->get('/count', cookie => $cookies[0], port => $port[1]);
    is $r->{status}, 200, 'the store is back';
    is scalar(grep { $_->{state} eq 'up' } @{ $site->status->{stores} }), 2, 'and is used';
    my $c = Site::cookie_of($r, $cookies[0]);
    my $count = Site::count_of($r);
    my $m = n_of($r);
    $site->get('/count', cookie => $c) for 1 .. 2;
    $site->tomcat($m)->kill9;
    $r = $site->get('/count', cookie => $c, port => $port[1]);
    is Site::count_of($r), $count + 3, 'a failover after it';
    isnt n_of($r), $m, 'to another member';
    is $site->status->{balancers}[0]{name}, 'balancer://tomcats', 'the page is there';
}
