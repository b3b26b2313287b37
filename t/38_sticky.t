# The ways to write a session id and a route that balancers are configured with: sticky as stock, and followed when the
# member dies and comes back.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Time::HiRes qw(sleep);
use Backend;
use Site;

plan tests => 6 * 9 + 3 * 4 + 4 * 6 + 1;

sub n_of { (Site::member_of($_[0]) // '') =~ /(\d+)/ ? $1 : 0 }
sub counts { join ' ', map { Site::count_of($_) // '-' } @_ }

# all cookies that an answer sets, over those from before
sub jar {
    my ($r, $before) = @_;
    my %jar = map { /^([^=]+)=(.*)/ } split /; /, $before // '';
    /^([^=]+)=([^;]*)/ and $jar{$1} = $2 for @{ $r->{head}{'set-cookie'} || [] };
    return join '; ', map { "$_=$jar{$_}" } sort keys %jar;
}

# ---- the route in a cookie of its own, by the member's or httpd's hand: stickysessionsep ------

my $apart;
# the last three: as httpd's documentation has it, by this module, and so for ids that have no route
for my $case (['-', 'x-'], ['!', 'x!'], ['off', ''], ['.', '.'], ['.', '.', 'ROUTEID'], ['.', '.', 'ROUTEID', 'JSESSIONID|jsessionid']) {
    my ($sep, $front, $ours, $sticky) = @$case;
    my $sets = $ours ? "SessionHARouteCookie $ours"
        : qq(Header add Set-Cookie "ROUTEID=$front%{BALANCER_WORKER_ROUTE}e; path=/" env=BALANCER_ROUTE_CHANGED);
    $sets .= "\nSessionHAId cookie=JSESSIONID" unless $sticky;
    $apart = Site->new(members => 2, nodes => 1, sticky => $sticky // 'ROUTEID|routeid', proxyset => "stickysessionsep=$sep", $apart ? (like => $apart)
        : (tomcat => { route => undef }, each => { map { $_ => { java_options => ["-Dmember=tomcat$_"] } } 1, 2 }), conf => $sets);
    my @r = $apart->get('/count');
    my $first = my $cookie = jar($r[0]);
    my $n = n_of($r[0]);
    is $cookie =~ /\bROUTEID=([^;]*)/ ? $1 : '-', "${front}tomcat$n", "stickysessionsep=$sep, " . ($ours ? $sets : 'Header') . ': the route has a cookie of its own';
    @r = map { $apart->get('/count', cookie => $cookie) } 1 .. 6;
    is counts(@r), '2 3 4 5 6 7', 'sticky';
    $apart->tomcat($n)->kill9;
    my $r = $apart->get('/count', cookie => $cookie);
    is Site::count_of($r), 8, 'its member is killed: the session goes on';
    my $m = n_of($r);
    isnt $m, $n, 'elsewhere';
    is jar($r) =~ /\bROUTEID=([^;]*)/ ? $1 : '-', "${front}tomcat$m", 'the route changes';
    $apart->tomcat($n)->restart;
    sleep 1.2;
    @r = map { $apart->get('/count', cookie => $_) } $first, jar($r, $cookie), $first;
    is counts(@r), '9 10 11', 'its member is back: the old route finds the session too';
    is join(' ', map { n_of($_) } @r), "$m $m $m", 'where it is';
    @r = map { $apart->get('/count') } 1 .. 6;
    ok 2 == keys %{{ map { n_of($_) => 1 } @r }}, 'new visitors go to both';
    is counts(@r), '1 1 1 1 1 1', 'each with a session of its own';
}

{
    my @r = map { $apart->get('/count', cookie => 'ROUTEID=.tomcat1') } 1 .. 6;
    is join(' ', map { n_of($_) } @r), '1 1 1 1 1 1', 'a route without an id sticks too, as stock';
}

# ---- stickysession and scolonpathdelim ------------------------------------------------------------

my $site;
for my $case (['one name', 'JSESSIONID', ''], ['two names', 'JSESSIONID|jsessionid', ''], ['scolonpathdelim', 'JSESSIONID|jsessionid', 'scolonpathdelim=On']) {
    my ($what, $sticky, $set) = @$case;
    $site = Site->new(members => 2, nodes => 1, sticky => $sticky, proxyset => $set, $site ? (like => $site) : ());
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    my $n = n_of($r);
    my ($value) = $cookie =~ /=(.*)/;
    my @ask = $what eq 'one name' ? ('/count', cookie => $cookie) : $what eq 'two names' ? ("/count;jsessionid=$value?q=1")
            : ("/count;jsessionid=$value;v=1?q=1");
    my @r = map { $site->get(@ask) } 1 .. 4;
    is counts(@r), '2 3 4 5', "$what: sticky";
    $site->tomcat($n)->kill9;
    $r = $site->get(@ask);
    is Site::count_of($r), 6, 'its member is killed: the session goes on';
    $site->tomcat($n)->restart;
    sleep 1.2;
    $r = $site->get(@ask);
    is Site::count_of($r), 7, 'its member is back: it still does';
    isnt n_of($r), $n, 'at the new one';
}

# ---- ids and routes of unusual characters, kept where only the member knows (native) ---------------------

sub member {
    my ($port, $name) = @_;
    Backend->start(port => $port, app => sub {
        my ($method, $uri, $head) = @_;
        return (200, [], "member=$name cookie=" . ($head->{cookie} // '-'));
    });
}
for my $case (['SHOP', "a!b#c\$d&e'(f)*+/:<=>?\@[g]^_`{|}~h", '', 'r'], ['SHOP', 's%3Aid.signature', '', 'r'],
              ['SHOP', 'plain', '', 'r/1+:@'], ['my$SID', 'plain', '-', 'r']) {
    my ($name, $id, $sep, $route) = @$case;
    my @port = map { Site::free_port() } 1 .. 3;
    my @member = map { member($port[$_], $_) } 0 .. 2;
    my $port = Site::free_port();
    my $httpd = Daemon->httpd($port, join "\n",
        "SessionHAStore lmdb:$site->{dir}/native-$port", "SessionHASecret file:$site->{secret}", 'SessionHAStoreTimeout 1000ms',
        '<Proxy "balancer://odd">', (map { "BalancerMember http://127.0.0.1:$port[$_] route=$route$_ retry=1" } 0 .. 2),
        "ProxySet stickysession=$name" . ($sep ? " stickysessionsep=$sep" : ''), 'SessionHA On', 'SessionHABackup native', 'SessionHANative none', '</Proxy>',
        'ProxyPass "/" "balancer://odd/"', '');
    my $get = sub { Site::read_answer($site->send_request('/x', port => $port, cookie => "$name=$id" . ($sep || '.') . $route . shift)) };
    my $who = sub { join ' ', map { Site::member_of($_) // $_->{status} } @_ };
    is $who->(map { $get->($_) } 0, 1, 2, 2, 1, 0), '0 1 2 2 1 0', "id $id, route ${route}0, cookie $name: sticky";
    like $get->(1)->{body}, qr/\Q$name=$id\E/, 'the member sees what the client sent';
    $member[1]->kill9;
    my @r = map { $get->(1) } 1 .. 6;
    my $heir = Site::member_of($r[0]);
    isnt $heir, 1, 'its member is killed: another one';
    is $who->(@r), join(' ', ($heir) x 6), 'the same one each time';
    $member[1] = member($port[1], 1);
    sleep 1.2;
    is $who->(map { $get->(1) } 1 .. 6), join(' ', ($heir) x 6), 'and when it is back';
    my @s = map { $site->send_request('/x', port => $port, cookie => "$name=$id" . ($sep || '.') . $route . 1) } 1 .. 10;
    is $who->(map { Site::read_answer($_) } @s), join(' ', ($heir) x 10), 'ten at once too';
    $httpd->end;
    $_->kill9 for @member;
}
