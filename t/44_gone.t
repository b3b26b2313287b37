# A member's machine is gone: nobody refuses, packets vanish. A request that would wait for its connection until the server's
# Timeout ends with SessionHAMemberTimeout, and is answered by another member, POST or not: nobody has run it.
use strict;
use warnings;
use Hosts;
use Apache::Test qw(-withtestmore);
use FaultSite;

plan tests => 5;

($FaultSite::members, $FaultSite::nodes) = (2, 2);
my $site = FaultSite->new(conf => "Timeout 300\n", proxyset => 'maxattempts=2', member => { map { $_ => 'disablereuse=On' } 1, 2 });
sub ask { return $site->at_httpd(1, get => @_) }
sub n_of { Site::member_of($_[0]) =~ /(\d+)/; $1 }

my $r = ask('/count');
my $cookie = Site::cookie_of($r);
my $first = n_of($r);
my $heir = 3 - $first;
is Site::count_of($r), 1, 'a session';
$site->member_lose($first);
$r = ask('/count', cookie => $cookie, body => 'a=b');
is_deeply [$r->{status}, Site::count_of($r), Site::member_of($r)], [200, 2, "tomcat$heir"], 'its machine is gone: a POST is answered by another member';
$cookie = Site::cookie_of($r, $cookie);
$site->member_find($first);
sleep 2;
$r = ask('/count', cookie => $cookie);
is_deeply [$r->{status}, Site::count_of($r), Site::member_of($r)], [200, 3, "tomcat$heir"], 'it is back, and the session stays';
$site->part(1, "member$heir", 'silent');
$r = ask('/count', cookie => $cookie);
is_deeply [$r->{status}, Site::count_of($r), Site::member_of($r)], [200, 4, "tomcat$first"], 'a partition: a GET is answered by the other one';
$site->part(1, "member$heir", 'refused');
is Site::count_of(ask('/count', cookie => Site::cookie_of($r, $cookie))), 5, 'and goes on';
$site->end;
