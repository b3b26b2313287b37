# How the backup reaches its new member: small states in a field of the request itself, large ones and those of a member
# that said where ahead of it, by PUT. The members are minimal ones, each without something.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Digest::SHA qw(hmac_sha256_base64);
use Fcntl qw(LOCK_EX);
use MIME::Base64 qw(encode_base64 decode_base64);
use Time::HiRes qw(sleep);
use Backend;
use Site;

plan tests => 26;

my $dir = Apache::Test::vars('t_logs') . "/restore-$$";
mkdir $dir or die "$dir: $!";
my $secret = 'a secret of thirty-two bytes or so';
sub write_file { my ($file, $what) = @_; open my $fh, '>', $file or die "$file: $!"; print $fh $what; close $fh }
write_file("$dir/secret", $secret);
chmod 0600, "$dir/secret";

# what a member was asked, a line each; its connections are processes
sub mark { open my $fh, '>>', "$dir/asked" or die $!; flock $fh, LOCK_EX; print $fh "@_\n" }
sub asked { open my $fh, '<', "$dir/asked" or return (); my @l = <$fh>; chomp @l; unlink "$dir/asked"; return @l }

# one hands over: ID in the cookie is the session, N-BYTES in the path its size, "at" that it says where
my ($one, $two) = (Site::free_port(), Site::free_port());
sub state_of { my ($id, $size) = @_; return substr "$id:" . 'x' x $size, 0, $size }
my $first = Backend->start(port => $one, app => sub {
    my ($method, $uri, $head) = @_;
    if ($uri =~ m{\A/(?:shop/)?\.well-known/}) {
        my ($id) = ($head->{'session-backup-fetch'} // '') =~ /id="(\w+)"/;
        my $state = state_of($id, 6000);
        return (200, [qq(Session-Backup: id="$id", epoch=1, seq=7, ttl=60, size=6000)], $state);
    }
    my ($id) = ($head->{cookie} // '') =~ /JSESSIONID=(\w+)/;
    my ($size) = $uri =~ /(\d+)-bytes/;
    my $b64 = encode_base64(state_of($id, $size), '');
    return (200, [qq(Session-Backup: id="$id", epoch=1, seq=7, ttl=60) . ($size > 4096 ? ", size=$size" : ", state=:$b64:")
        . ($uri =~ /at/ ? ', at="/shop/.well-known/session-backup"' : '')], "member=r1\n");
});
# two takes over; what it answers a PUT is in a file
my $heir = Backend->start(port => $two, app => sub {
    my ($method, $uri, $head, $body) = @_;
    my $field = $head->{'session-restore'} // '-';
    mark("$method $uri $field", $method eq 'PUT' ? encode_base64($body, '') : ());
    if ($method eq 'PUT') {
        open my $fh, '<', "$dir/put" or die $!;
        return (<$fh>, [], '');
    }
    if ($uri eq '/gate') {
        sleep 0.3;
        mark('answered');
    }
    return (200, [], "member=r2\n");
});
my $port = Site::free_port();
my $httpd = Daemon->httpd($port, <<C);
SessionHAStore lmdb:$dir/store
SessionHASecret file:$dir/secret
SessionHAStoreTimeout @{[ $ENV{VALGRIND} ? '5000ms' : '1000ms' ]}
<Proxy "balancer://x">
  BalancerMember http://127.0.0.1:$one route=r1 retry=60
  BalancerMember http://127.0.0.1:$two route=r2
  ProxySet stickysession=JSESSIONID
  SessionHA On
</Proxy>
<Location "/session-ha-status">
  SetHandler session-ha-status
</Location>
ProxyPass "/session-ha-status" "!"
ProxyPass "/" "balancer://x/"
C
my $site = bless { port => $port, scheme => 'http', httpd => $httpd }, 'Site';

my %id = (small => 'AAA', limit => 'BBB', large => 'CCC', where => 'DDD', both => 'EEE', gate => 'FFF', map { ("not$_" => "N$_") } 404, 405, 410, 501, 422, 200);
my %path = (small => '/100-bytes', limit => '/4096-bytes', large => '/6000-bytes', gate => '/100-bytes', where => '/100-bytes-at', both => '/6000-bytes-at');
$path{$_} //= '/100-bytes-at' for keys %id;
for my $which (sort keys %id) {
    my $r = $site->get($path{$which}, cookie => "JSESSIONID=$id{$which}.r1");
    die "$which: $r->{status}" unless $r->{status} == 200 && Site::member_of($r) eq 'r1';
}
$first->kill9;
asked();

sub restored {
    my ($which, $put) = @_;
    write_file("$dir/put", $put // 204);
    my $r = $site->get('/x', cookie => "JSESSIONID=$id{$which}.r1");
    is "$r->{status} " . Site::member_of($r), '200 r2', "$which: answered by the new member";
    return asked();
}
sub signed { my ($id, $state) = @_; my $mac = hmac_sha256_base64(join("\n", 'restore', $id, 2, 7, $state), $secret); return $mac . '=' x (-length($mac) % 4) }
sub in_request { my ($id, $size) = @_; my $s = state_of($id, $size);
    return qq(GET /x id="$id", epoch=2, seq=7, state=:) . encode_base64($s, '') . ':, mac=:' . signed($id, $s) . ':' }
sub ahead { my ($id, $size, $at) = @_; my $s = state_of($id, $size);
    return qq(PUT $at id="$id", epoch=2, seq=7, mac=:) . signed($id, $s) . ': ' . encode_base64($s, '') }
my $default = '/.well-known/session-backup';

is_deeply [restored('small')], [in_request($id{small}, 100)], 'no word of where: in the request itself, and nothing ahead of it';
is_deeply [restored('limit')], [in_request($id{limit}, 4096)], '4096 bytes too';
is_deeply [restored('large')], [ahead($id{large}, 6000, $default), 'GET /x -'], 'a large one goes ahead, to the default place';
is_deeply [restored('where')], [ahead($id{where}, 100, "/shop$default"), 'GET /x -'], 'said where: ahead, to that place, however small';
is_deeply [restored('both')], [ahead($id{both}, 6000, "/shop$default"), 'GET /x -'], 'and a large one';

# said where, and the new member knows no such place
for my $status (404, 405, 410, 501) {
    is_deeply [restored("not$status", $status)], [ahead("N$status", 100, "/shop$default"), in_request("N$status", 100)],
        "PUT answered with $status: then in the request";
}
for my $status (422, 200) {
    is_deeply [restored("not$status", $status)], [ahead("N$status", 100, "/shop$default"), qq(GET /x id="N$status", none)],
        "$status: it was understood, and not taken";
}
is_deeply [map { $_->{outcome} } @{ $site->status->{journal} }], [('refused') x 2, ('restored') x 9], 'the journal says so';

# the others of the session wait for the answer of the one that carries it
my @r = $site->parallel(6, '/gate', cookie => "JSESSIONID=$id{gate}.r1");
is join(' ', map { "$_->{status} " . Site::member_of($_) } @r), join(' ', ('200 r2') x 6), 'six at once: all are answered by the new member';
my @asked = asked();
is_deeply [@asked[0, 1]], [in_request($id{gate}, 100) =~ s/x/gate/r, 'answered'], 'one goes first, with the state, and is answered';
is scalar(grep { $_ eq 'GET /gate -' } @asked), 5, 'then the others, without it';
$httpd->end;
$heir->kill9;
