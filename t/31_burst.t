# P1: twenty parallel requests of one session, with the old cookie, right after kill -9: one member answers
# them all, and no update is lost.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Site;

my $rounds = 4;
plan tests => 2 * $rounds * 4;

for my $nodes (1, 0) {      # memcached, lmdb
    my $site = Site->new(members => 3, nodes => $nodes);
    my $dead;
    for my $round (1 .. $rounds) {
        my $r = $site->get('/count');
        my $cookie = Site::cookie_of($r);
        my ($n) = Site::member_of($r) =~ /(\d+)/;
        $site->get('/count', cookie => $cookie) for 2 .. 5;
        $site->tomcat($dead)->restart if $dead;
        $site->tomcat($n)->kill9;
        $dead = $n;
        my @r = $site->parallel(20, '/count', cookie => $cookie);
        is join(' ', map { $_->{status} } @r), join(' ', (200) x 20), "round $round: all answered";
        my %member = map { (Site::member_of($_) // 'none') => 1 } @r;
        is keys %member, 1, 'by one member' or diag join ' ', %member;
        is_deeply [sort { $a <=> $b } map { Site::count_of($_) // -1 } @r], [6 .. 25], 'twenty updates, twenty counts';
        my @moves = grep { $_->{epoch} == 2 } @{ $site->status->{journal} };
        is @moves, $round, 'moved once';
        sleep 2;
    }
}
