# The main job: a session outlives its killed Tomcat, with http and with ajp members.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Digest::SHA qw(sha256_hex);
use Site;

plan tests => 2 * 27 + 3;

for my $scheme (qw(http ajp)) {
    my $site = Site->new(members => 3, nodes => 1, scheme => $scheme);
    # before it has listened once, an httpd reckons with others, and looks what has become of what it stores
    my $hits = sub { $site->status->{stores}[0]{hits} };
    for (1 .. 100) {
        my $before = $hits->();
        $site->get('/count');
        last if $hits->() == $before;
        select undef, undef, undef, 0.1;
    }
    my $before = $hits->();
    my $r = $site->get('/count');
    is $r->{status}, 200, "$scheme: a new session";
    my $first = my $cookie = Site::cookie_of($r);
    my $home = Site::member_of($r);
    like $cookie, qr/\AJSESSIONID=[0-9A-F]+\.\Q$home\E\z/, 'its cookie names its member';
    ok !(grep { /^session-/ } keys %{ $r->{head} }), 'no field of ours reaches the client';
    for my $n (2 .. 4) {
        $r = $site->get('/count', cookie => $cookie);
        is Site::count_of($r), $n, "count $n";
    }
    is Site::member_of($r), $home, 'still at its member';
    is $hits->(), $before, 'no look-up in the store while it is well';

    my ($n) = $home =~ /(\d+)/;
    $site->tomcat($n)->kill9;
    $r = $site->get('/count', cookie => $cookie);
    is $r->{status}, 200, 'killed, and the next request is answered';
    is Site::count_of($r), 5, 'the count goes on';
    my $heir = Site::member_of($r);
    isnt $heir, $home, "at another member ($heir)";
    $cookie = Site::cookie_of($r, $cookie);
    my ($id) = $first =~ /=([^.]+)/;
    is $cookie, "JSESSIONID=$id.$heir", 'the cookie has the new route';

    my $status = $site->status;
    my $entry = $status->{journal}[0];
    is_deeply [@$entry{qw(balancer from to cause outcome epoch)}], ['balancer://tomcats', $home, $heir, 'connect', 'restored', 2],
        'the journal has it' or diag explain $entry;
    is $entry->{session}, substr(sha256_hex("balancer://tomcats\0$id"), 0, 12), 'under the digest';
    my ($from) = grep { $_->{route} eq $home } @{ $status->{balancers}[0]{members} };
    my ($to) = grep { $_->{route} eq $heir } @{ $status->{balancers}[0]{members} };
    is_deeply [$from->{moved_out}, $to->{moved_in}, $to->{restored}], [1, 1, 1], 'counted at both members';
    my $log = $site->error_log;
    my @lines = grep { /moved from \Q$home\E to \Q$heir\E/ } split /\n/, $log;
    is @lines, 1, 'one line in the error log';
    like $lines[0], qr/, 1 store round trips, /, 'the claim and the backup in one round trip';
    unlike $log, qr/$id/i, 'no session id in it';
    like $site->get('/balancer-manager')->{body}, qr/$entry->{session}/, 'balancer-manager shows it';

    $site->tomcat($n)->restart;
    sleep 2;    # retry=1: mod_proxy tries it again
    $r = $site->get('/count', cookie => $first);
    is Site::count_of($r), 6, 'the member is back; the old cookie finds the session';
    is Site::member_of($r), $heir, 'where it is now';
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), 7, 'and so does the new one';

    # away again: to and from members that have been dead and alive
    my ($m) = $heir =~ /(\d+)/;
    $site->tomcat($m)->kill9;
    $r = $site->get('/count', cookie => $cookie);
    is Site::count_of($r), 8, 'a second failover';
    my $third = Site::member_of($r);
    isnt $third, $heir, "to a third owner ($third)";
    is $site->status->{journal}[0]{epoch}, 3, 'epoch 3';
    $site->tomcat($m)->restart;
    sleep 2;
    my ($k) = $third =~ /(\d+)/;
    $site->tomcat($k)->kill9;
    $r = $site->get('/count', cookie => $first);
    is Site::count_of($r), 9, 'a third one, with the oldest cookie: no copy that a former owner may hold is served';
    ok !(grep { $_->{outcome} ne 'restored' } @{ $site->status->{journal} }), 'all of them restored';
}

# its retry time is over before the store has answered: whoever failed in this request is not its owner again
{
    my $site = Site->new(members => 2, nodes => 1, retry => 'retry=0');
    my $r = $site->get('/count');
    my ($cookie, $home) = (Site::cookie_of($r), Site::member_of($r));
    $site->tomcat($home =~ /(\d+)/)->kill9;
    $r = $site->get('/count', cookie => $cookie);
    is $r->{status}, 200, 'retry=0: killed, and the next request is answered';
    is Site::count_of($r), 2, 'with the session';
    isnt Site::member_of($r), $home, 'at the other member';
}
