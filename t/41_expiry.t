# A session that is only read: the Valve tells it again under the version it had, its copies live on, and nothing of it is
# fetched or written again. Seen from the files of a file: store, which end when their mtime says so.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Time::HiRes qw(sleep stat time utime);
use Site;

plan tests => 21;

my $ttl = 8;                    # the Valve tells each quarter of it
my $site = Site->new(members => 2, nodes => 0);
$site->{store} = join ' ', map { "file:$site->{dir}/$_" } qw(one two);
$site->restart_httpd;

sub n_of { (Site::member_of($_[0]) // '') =~ /(\d+)/; $1 }
sub counted {
    my $prom = $site->get('/session-ha-status?format=prometheus')->{body};
    return ((map { $prom =~ /^session_ha_backups_total\{[^}]*result="$_"\} (\d+)/m ? $1 : 0 } qw(stored touched)),
        $prom =~ /^session_ha_backup_bytes_total\{[^}]*\} (\d+)/m ? $1 : 0);
}
# [expires, inode, bytes] by name
sub copies { return { map { my @s = stat; ($_ => [@s[9, 1, 7]]) } glob "$site->{dir}/{one,two}/??/ha%3ab%3a*" } }
sub written { my $of = shift; return { map { $_ => [@{ $of->{$_} }[1, 2]] } keys %$of } }
sub read_for {
    my ($seconds, @paths) = @_;
    my ($end, @last) = time + $seconds;
    while (time < $end) {
        @last = map { $site->get($_->[0], cookie => $_->[1]) } @paths;
        sleep 0.4;
    }
    return @last;
}

my (@cookie, @n);
for my $path ('/count', '/big?bytes=900000') {
    my $cookie = Site::cookie_of($site->get("/max?seconds=$ttl"));
    my $r = $site->get($path, cookie => $cookie);
    $r = $site->get($path, cookie => $cookie) if $path eq '/count';
    is $r->{status}, 200, $path;
    push @cookie, $cookie;
    push @n, n_of($r);
}
my $sum = $site->get('/big', cookie => $cookie[1])->{body} =~ s/ member=.*//sr;
my $before = copies();
is keys %$before, 4, 'two sessions, two copies each';
my ($stored, $touched, $bytes) = counted();

# all of them have as much left as if their ttl and the minute after it were nearly over
utime time, time + $ttl - 4, $_ for keys %$before;
my @r = read_for($ttl, ['/count?peek', $cookie[0]], ['/big', $cookie[1]]);
is Site::count_of($r[0]), 2, 'read for a whole ttl';
my $after = copies();
is_deeply [grep { $_->[0] < time + 30 } values %$after], [], 'the copies live on';
is_deeply written($after), written($before), 'and are the same files';
my ($stored1, $touched1, $bytes1) = counted();
is "$stored1 $bytes1", "$stored $bytes", 'nothing was fetched or stored';
cmp_ok $touched1 - $touched, '>=', 4, ($touched1 - $touched) . ' were touched';
like $site->get('/session-ha-status')->{body}, qr/\b$touched1 touched\b/, 'the page says so';

# a copy that is lost comes back with the next word
my ($small) = grep { m{/one/} && $before->{$_}[2] < 10_000 } keys %$before;
my ($large) = grep { m{/two/} && $before->{$_}[2] > 10_000 } keys %$before;
unlink $small, $large;
read_for($ttl / 4 + 2, ['/count?peek', $cookie[0]], ['/big', $cookie[1]]);
is_deeply [sort keys %{ copies() }], [sort keys %$before], 'a node that lost its copy has one again';
my ($stored2, $touched2, $bytes2) = counted();
is $stored2 - $stored1, 2, 'each was stored once';
cmp_ok $bytes2 - $bytes1, '>', 900_000, 'the large one fetched for it';

# and it is what its member had
for my $i (0, 1) {
    $site->tomcat($n[$i])->kill9 if $site->tomcat($n[$i])->pid;
    my $r = $site->get($i ? '/big' : '/count', cookie => $cookie[$i]);
    is $r->{status}, 200, 'its member is killed';
    isnt n_of($r), $n[$i], 'another one answers';
    is $i ? $r->{body} =~ s/ member=.*//sr : Site::count_of($r), $i ? $sum : 3, 'with what it had';
    $site->tomcat($n[$i])->restart;
    sleep 2;
}
my ($first) = map { $_->{outcome} } $site->status->{journal}[0];
is $first, 'restored', 'the journal says so';
unlike $site->error_log, qr/\[(?:error|crit)\]/, 'no error is in the log';
unlike $site->error_log, qr/$cookie[0]|$cookie[1]/, 'and no id';
