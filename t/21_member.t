# The protocol as a member sees it that is no Tomcat: what it may say of a session, in every form that doc/protocol.md
# allows, and what it may not. One member tells, is killed, and the other one is given the session, or is told of none.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Digest::SHA qw(hmac_sha256_base64);
use MIME::Base64 qw(decode_base64 encode_base64);
use Backend;
use Site;

my $dir = Apache::Test::vars('t_logs') . "/member-$$";
mkdir $dir or die "$dir: $!";
my $secret = 'a secret of thirty-two bytes or so';
sub write_file { my ($file, $what) = @_; open my $fh, '>', $file or die "$file: $!"; binmode $fh; print $fh $what; close $fh or die "$file: $!" }
sub read_file { my ($file) = @_; open my $fh, '<', $file or return; binmode $fh; local $/; return scalar <$fh> }
write_file("$dir/secret", "$secret\n");
chmod 0600, "$dir/secret";

my $well_known = '/.well-known/session-backup';
my $every = join '', map { chr } 0 .. 255;
my $long = join '', map { chr(33 + $_ * $_ % 90) } 1 .. 200_000;
sub b64 { encode_base64($_[0], '') }
sub ok200 { my ($head, $body) = @_; my $len = length $body; return \"HTTP/1.1 200 OK\r\n$head\r\nContent-Length: $len\r\n\r\n$body" }
# (a kept connection that is found closed is nobody's fault: each of these is met by the next fetch)
# what the field of a fetched state may look like
my $of = 'Session-Backup: id="ID", epoch=1, seq=7, ttl=60';

# name, what the member says (ID: its id), the state that is to arrive (undef: none); then, of a state that is fetched,
# what the member answers at $well_known, or where else
my @cases = (
    ['a word',              'id="ID", epoch=1, seq=1, ttl=60, state=:' . b64('hello') . ':', 'hello'],
    ['every byte',          'id="ID", epoch=1, seq=1, ttl=60, state=:' . b64($every x 3) . ':', $every x 3],
    ['no byte',             'id="ID", epoch=1, seq=0, ttl=60, state=::', ''],
    ['a NUL',               'id="ID", epoch=1, seq=1, state=:AA==:', "\0"],
    ['no padding',          'id="ID", epoch=1, seq=1, state=:AA:', "\0"],
    ['no ttl',              'id="ID", epoch=1, seq=1, state=:QQ==:', 'A'],
    ['ttl of 0',            'id="ID", epoch=1, seq=1, ttl=0, state=:QQ==:', 'A'],
    ['ttl without an end',  'id="ID", epoch=1, seq=1, ttl=-1, state=:QQ==:', 'A'],
    ['ttl of an age',       'id="ID", epoch=1, seq=1, ttl=99999999999, state=:QQ==:', 'A'],
    ['15 digits',           'id="ID", epoch=999999999999998, seq=999999999999999, ttl=60, state=:QQ==:', 'A'],
    ['any order',           'state=:QQ==:, ttl=60, seq=1, epoch=1, id="ID"', 'A'],
    ['spaces',              qq(  id="ID"\t,  epoch=1 ,seq=1,\tstate=:QQ==:  ), 'A'],
    ['unknown keys',        'new=(1 "b";c);d, id="ID";x, epoch=1;y=?1, e=1.5, f=@5, seq=1, g, h=%"a", state=:QQ==:;z=tok/en', 'A'],
    ['keys twice',          'id="NO", id="ID", epoch=9, epoch=1, seq=9, seq=1, state=:Qg==:, state=:QQ==:', 'A'],
    ['two lines',           "id=\"ID\", epoch=1\r\nSession-Backup: seq=1, state=:QQ==:", 'A'],
    ['three, and others',   "id=\"ID\", epoch=1\r\nX-A: b\r\nsession-backup: seq=1\r\nSESSION-BACKUP: ttl=5, state=:QQ==:", 'A'],
    ['its place beside',    qq(id="ID", epoch=1, seq=1, state=:QQ==:, at="/a b"), undef],
    ['no id',               'epoch=1, seq=1, state=:QQ==:', undef],
    ['a token for an id',   'id=ID, epoch=1, seq=1, state=:QQ==:', undef],
    ['epoch of 0',          'id="ID", epoch=0, seq=1, state=:QQ==:', undef],
    ['state and size',      'id="ID", epoch=1, seq=1, state=:QQ==:, size=1', undef],
    ['an end too few',      'id="ID", epoch=1, seq=1, state=:QQ==', undef],
    ['fetched',             'id="ID", epoch=1, seq=1, ttl=60, size=200000', $long, ok200("$of, size=200000", $long)],
    ['fetched: every byte', 'id="ID", epoch=1, seq=1, ttl=60, size=256', $every, ok200("$of, size=256", $every)],
    ['fetched: no byte',    'id="ID", epoch=1, seq=1, ttl=60, size=0', '', ok200("$of, size=0", '')],
    ['fetched: has grown',  'id="ID", epoch=1, seq=1, ttl=60, size=2', 'hello', ok200("$of, size=5", 'hello')],
    ['fetched: has shrunk', 'id="ID", epoch=1, seq=1, ttl=60, size=2000', 'hello', ok200("$of, size=5", 'hello')],
    ['fetched: no size',    'id="ID", epoch=1, seq=1, size=5', 'hello', ok200('Session-Backup: id="ID", epoch=1, seq=7', 'hello')],
    ['fetched: seq only',   'id="ID", epoch=1, seq=1, size=5', 'hello', ok200('Session-Backup: seq=7', 'hello')],
    ['fetched: in chunks',  'id="ID", epoch=1, seq=1, size=5', 'hello', \"HTTP/1.1 200 OK\r\n$of\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
    ['fetched: to the end', 'id="ID", epoch=1, seq=1, size=5', 'hello', \"HTTP/1.1 200 OK\r\n$of, size=5\r\nConnection: close\r\n\r\nhello"],
    ['fetched elsewhere',   qq(id="ID", epoch=1, seq=1, size=5, at="/shop$well_known"), 'hello', ok200("$of, size=5", 'hello'), "/shop$well_known"],
    ['fetched: cut off',    'id="ID", epoch=1, seq=1, size=50', undef, \"HTTP/1.1 200 OK\r\nConnection: close\r\n$of, size=50\r\nContent-Length: 50\r\n\r\nhello"],
    ['fetched: last chunk missing', 'id="ID", epoch=1, seq=1, size=5', undef, \"HTTP/1.1 200 OK\r\nConnection: close\r\n$of\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"],
    ['fetched: less than it says', 'id="ID", epoch=1, seq=1, size=50', undef, ok200("$of, size=50", 'hello')],
    ['fetched: too large',  'id="ID", epoch=1, seq=1, size=50', undef, ok200("$of, size=300001", 'x' x 300_001)],
    ['too large to fetch',  'id="ID", epoch=1, seq=1, size=300001', undef, ok200("$of, size=5", 'hello')],
    ['fetched: of another', 'id="ID", epoch=1, seq=1, size=5', undef, ok200('Session-Backup: id="OTHER", epoch=1, seq=7, size=5', 'hello')],
    ['fetched: given anew', 'id="ID", epoch=1, seq=1, size=5', undef, ok200('Session-Backup: id="ID", epoch=2, seq=7, size=5', 'hello')],
    ['fetched: without seq', 'id="ID", epoch=1, seq=1, size=5', undef, ok200('Session-Backup: id="ID", size=5', 'hello')],
    ['fetched: a part',     'id="ID", epoch=1, seq=1, size=5', undef, \"HTTP/1.1 206 Part\r\n$of, size=5\r\nContent-Length: 5\r\n\r\nhello"],
    (map { ["not fetched at '$_'", qq(id="ID", epoch=1, seq=1, size=5, at="$_"), undef, ok200("$of, size=5", 'hello')] }
        "http://127.0.0.1$well_known", "//127.0.0.1$well_known", "/x/..$well_known", "/x%2f..%2f$well_known", "$well_known?x", "$well_known/x", '/else', ''),
);
my @ids = map { sprintf 'S%02d:/+=!$', $_ } 0 .. $#cases;

# The one that tells: the client names the case. What is asked at the well-known path is written down.
sub teller {
    my ($method, $uri, $head) = @_;
    if ($head->{'session-backup-fetch'}) {
        my ($id, $time, $mac) = $head->{'session-backup-fetch'} =~ /\Aid="([^"]*)", time=(\d+), mac=:(.*):\z/ or return (400, [], '');
        my ($n) = grep { $ids[$_] eq $id } 0 .. $#cases;
        my $good = $mac eq hmac_sha256_base64("fetch\n$id\n$time\n", $secret) . '=' && abs($time - time) < 60;
        write_file("$dir/fetched.$n", $good ? $uri : 'not signed');
        my $answer = ${ $cases[$n][3] };
        $answer =~ s/"ID"/"$id"/;
        return \$answer;
    }
    my ($n) = $uri =~ /case=(\d+)/ or return (404, [], '');
    return (200, ['Session-Backup: ' . $cases[$n][1] =~ s/\bID\b/$ids[$n]/r], 'told');
}
# The one that is given: over the path, or in the field.
sub taker {
    my ($method, $uri, $head, $body) = @_;
    my $restore = $head->{'session-restore'} // '';
    my ($id) = $restore =~ /\bid="([^"]*)"/ or return (200, [], "nothing\n");
    my ($n) = grep { $ids[$_] eq $id } 0 .. $#cases;
    if ($restore =~ /, none\z/) {
        write_file("$dir/none.$n", $uri);
        return (200, [], "none\n");
    }
    my ($epoch, $seq) = $restore =~ /\bepoch=(\d+), seq=(\d+)/;
    my $state = $method eq 'PUT' ? $body // '' : decode_base64($restore =~ /state=:([^:]*):/ ? $1 : '');
    my ($mac) = $restore =~ /mac=:([^:]*):/;
    write_file("$dir/state.$n", $mac eq hmac_sha256_base64(join("\n", 'restore', $id, $epoch, $seq, $state), $secret) . '=' ? $state : "not signed");
    write_file("$dir/version.$n", "$epoch $seq" . ($method eq 'PUT' ? " $uri" : ''));
    return $method eq 'PUT' ? (204, [], '') : (200, [], "given\n");
}

my ($p1, $p2) = (Site::free_port(), Site::free_port());
my $teller = Backend->start(port => $p1, app => \&teller);
my $taker = Backend->start(port => $p2, app => \&taker);
my $port = Site::free_port();
my $httpd = Daemon->httpd($port, <<C);
SessionHAStore lmdb:$dir/store
SessionHASecret file:$dir/secret
SessionHAStoreTimeout @{[ $ENV{VALGRIND} ? '5000ms' : '1000ms' ]}
SessionHAMaxSize 300000
<Proxy "balancer://all">
  BalancerMember http://127.0.0.1:$p1/app route=r1 retry=60
  BalancerMember http://127.0.0.1:$p2/app route=r2 retry=60
  ProxySet stickysession=JSESSIONID|jsessionid
  SessionHA On
</Proxy>
ProxyPass "/app" "balancer://all"
C
my $site = bless { port => $port }, 'Site';
plan tests => 4 * @cases;

for my $n (0 .. $#cases) {
    my ($name) = @{ $cases[$n] };
    my $r = $site->get("/app/x?case=$n", cookie => "JSESSIONID=$ids[$n].r1");
    if ($name =~ /anew/) { is $r->{status}, 502, "$name: the answer is not of what the member has now" }
    else { is "$r->{status} $r->{body}", '200 told', "$name: the client has its answer" or diag explain $r }
    is join(' ', grep { /^session-/ } keys %{ $r->{head} }), '', '... without the field';
}
$teller->kill9;
for my $n (0 .. $#cases) {
    my ($name, $said, $state, $fetched, $at) = @{ $cases[$n] };
    my $r = $site->get('/app/x', cookie => "JSESSIONID=$ids[$n].r1");
    my ($given, $version) = map { read_file("$dir/$_.$n") } qw(state version);
    # a path is the server's, not that of the member in httpd's configuration
    my $asked = $fetched && ($at || defined $state || $name =~ /^fetched/) ? $at // $well_known : undef;
    if (defined $state) {
        ok defined $given && $given eq $state, "$name: the other member is given it" or diag $given // 'nothing';
        my ($epoch, $seq) = ($said =~ /.*\bepoch=(\d+)/s, $said =~ /.*\bseq=(\d+)/s);
        ($epoch, $seq) = (($$fetched =~ /epoch=(\d+)/ ? $1 : $epoch), 7) if $fetched;
        like $version, qr/\A@{[ $epoch + 1 ]} $seq(?: \Q@{[ $at || $well_known ]}\E)?\z/, '... in its version';
    }
    else {
        ok !defined $given && read_file("$dir/none.$n"), "$name: the other member is told of none" or diag $given // 'nothing';
        is read_file("$dir/fetched.$n"), $asked, $asked ? '... it was asked for' : '... nothing was asked for';
    }
}
