# What a client, a member or whoever can write into the store may send: nothing of it steers, leaks or stops a request.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Digest::SHA qw(sha256_hex);
use Backend;
use Site;

my @ours = qw(Session-Backup Session-Backup-Accept Session-Backup-Fetch Session-Missing Session-Restore);

# ---- echo members: what reaches a member, what comes back to the client -------------------------

# As bytes go over the wire: LWP and its like repair what should arrive broken.
sub raw {
    my ($port, $request) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp') or die "connect: $!";
    local $SIG{PIPE} = 'IGNORE';
    for (my $off = 0; $off < length $request; ) { $off += syswrite($s, $request, 65536, $off) || last }
    return Site::read_answer($s);
}

my $echo_fields = join '', map { "$_: " . ($_ eq 'Session-Backup' ? 'id="ABC", epoch=1, seq=1, ttl=60, state=:QQ==:' : 'id="ABC"') . "\r\n" } @ours;
sub member {
    my ($route) = @_;
    my $port = Site::free_port();
    return Backend->start(port => $port, app => sub {
        my ($method, $uri, $head) = @_;
        my $out = join '', "member=$route\n", "$method $uri\n", map { "< $_: $head->{$_}\n" } sort keys %$head;
        my ($what) = $uri =~ /say=(\w+)/;
        return \"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: Session-Backup\r\n\r\n3\r\nyes\r\n0\r\n${echo_fields}X-Behind: it\r\n\r\n"
            if ($what // '') eq 'trailers';
        return (200, [], $out) unless $what;
        my @more = $echo_fields =~ /([^\r\n]+)/g;
        return (302, [@more, 'Location: /elsewhere'], '') if $what eq 'redirect';
        return ($what, $what == 425 ? [grep { !/^Session-Missing/ } @more] : \@more, $what == 304 || $method eq 'HEAD' ? '' : $out);
    });
}
my %member = map { $_ => member($_) } qw(r1 r2 r3);
my %common = (members => join('', map { "  BalancerMember http://127.0.0.1:$member{$_}{port} route=$_ retry=60\n" } sort keys %member));
my $dir = Apache::Test::vars('t_logs') . "/bad-$$";
mkdir $dir or die "$dir: $!";
sub write_file { my ($file, $what) = @_; open my $fh, '>', $file or die "$file: $!"; print $fh $what; close $fh }
write_file("$dir/secret", 'a secret of thirty-two bytes or so');
chmod 0600, "$dir/secret";
my $port = Site::free_port();
my $front = bless { port => $port }, 'Site';

sub balancer {
    my ($name, $more) = @_;
    return <<C;
<Proxy "balancer://$name">
$common{members}  ProxySet stickysession=JSESSIONID|jsessionid
  $more
</Proxy>
ProxyPass "/$name/" "balancer://$name/"
C
}
my $httpd = Daemon->httpd($port, join "\n", "SessionHAStore lmdb:$dir/store", "SessionHASecret file:$dir/secret",
    'SessionHAStoreTimeout ' . ($ENV{VALGRIND} ? '5000ms' : '1000ms'),
    'LimitRequestFieldSize 131072', 'LimitRequestLine 131072', 'ErrorDocument 500 "our own page"', 'AllowEncodedSlashes NoDecode',
    balancer(on => 'SessionHA On'), balancer(off => 'SessionHA Off'),
    balancer(native => "SessionHA On\n  SessionHABackup native\n  SessionHANative none"),
    balancer(override => "SessionHA On\n  ProxyErrorOverride On"),
    qq(<Location "/on/ignored">\n  SessionHAIgnore .*\n</Location>), qq(<Location "/on/off">\n  SessionHA Off\n</Location>), 'Protocols h2c http/1.1',
    qq(ProxyPass "/plain/" "http://127.0.0.1:$member{r1}{port}/"),
    qq(ProxyPass "/nocanon/" "balancer://on/" nocanon),
    "RewriteEngine On", qq(RewriteRule ^/rewritten/(.*) balancer://on/\$1 [P]),
    qq(<Location "/session-ha-status">\n  SetHandler session-ha-status\n</Location>));
my $log = sub { Daemon::tail_of("$httpd->{dir}/error_log", 0) };
my $status = sub { JSON::PP::decode_json($front->get('/session-ha-status?format=json')->{body}) };

# fields of the protocol in a request, however they are spelled
{
    # members that show fields as variables cannot tell _ from -
    my @spelled = map { ($_, lc, uc, tr/-/_/r, s/-/_/r, (join '-', map { lcfirst uc } split /-/)) } @ours;
    for my $where (qw(on off native override on/ignored plain nocanon rewritten)) {
        my $r = $front->get("/$where/x", cookie => 'JSESSIONID=ABC.r1', head => [map { qq($_: id="ABC", none) } @spelled, reverse @spelled]);
        my @seen = grep { !/^session-backup-accept: v=1, inline=\d+$/ } $r->{body} =~ /^< (session[-_].*)$/mg;
        is_deeply [$r->{status}, \@seen], [200, []], "/$where/: no field of the protocol passes to the member";
        my $accept = $where =~ m{^(?:off|native|on/ignored|plain)$} ? 0 : 1;
        is scalar(() = $r->{body} =~ /^< session-backup-accept: v=1, inline=\d+$/mg), $accept, $accept ? '... but our own' : '... and none of ours';
    }
    my $r = raw($port, "GET /on/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-A: b\r\n Session-Restore: id=\"ABC\", none\r\n"
        . "Session-Missing\t: x\r\n\r\n");
    is $r->{status}, 400, 'white space before the colon: refused by httpd';
    $r = raw($port, "GET /on/x HTTP/1.1\r\nHost: h\r\nX-A: b\r\n Session-Restore: id=\"ABC\", none\r\nConnection: close\r\n\r\n");
    unlike $r->{body}, qr/^< session-restore/m, 'a folded line is no field';
    $r = raw($port, "GET /on/x HTTP/1.1\r\nHost: h\r\nCookie: JSESSIONID=ABC.r1\r\nConnection: close, Session-Backup-Accept, session-restore\r\n"
        . "Connection: SESSION-BACKUP-ACCEPT\r\n\r\n");
    like $r->{body}, qr/^< session-backup-accept: v=1/m, 'what a client names in Connection takes no field of ours away';
}

# and in an answer
for my $where (qw(on off native override on/ignored on/off plain nocanon rewritten)) {
    for my $say (qw(200 304 404 425 500 503 redirect)) {
        for my $method ($say eq '200' || $say eq '500' ? qw(GET HEAD) : 'GET') {
            my $r = $front->get("/$where/x?say=$say", method => $method, cookie => 'JSESSIONID=ABC.r1');
            my @leaked = grep { /^session-/ } keys %{ $r->{head} };
            is_deeply [$r->{status}, \@leaked], [$say eq 'redirect' ? 302 : $say, []], "/$where/: $method, answered $say: none to the client";
        }
    }
}
is $front->get('/override/x?say=500')->{body}, 'our own page', 'ProxyErrorOverride: the page is ours';

# fields behind an answer: HTTP/2 passes them on
for my $where (qw(on off native on/off plain)) {
    my $url = "http://127.0.0.1:$port/$where/x?say=trailers";
    my $said = qx(curl -s -i -m 20 --http2-prior-knowledge -H "TE: trailers" -b JSESSIONID=ABC.r1 "$url");
    like $said, qr/\AHTTP\/2 200.*yes\s*x-behind: it/ims, "/$where/: trailers pass";
    unlike $said, qr/session-/i, '... but ours';
    unlike $front->get("/$where/x?say=trailers", cookie => 'JSESSIONID=ABC.r1')->{body}, qr/session-/i, '... nor over HTTP/1.1';
}

# the path at which members hand out sessions
{
    my @spellings = ('/.well-known/session-backup', '/shop/.well-known/session-backup', '/%2ewell-known/session-backup', '/.well-known/%73ession-backup',
        '/.well-known//session-backup', '//.well-known/session-backup', '/.well-known/session-backup/', '/.well-known/session-backup//',
        '/.well-known/./session-backup', '/.well-known/x/../session-backup', '/x/%2e%2e/.well-known/session-backup',
        '/.well-known;a=b/session-backup', '/.well-known/session-backup;jsessionid=ABC.r1', '/.well-known;/;/session-backup;',
        '/.well-known/session-backup/;x', '/.well-known/session-backup?x=1', '/.well-known/session-backup?', '/.well-known/session-backup;x?a/b',
        '/.well-known/x/..;/session-backup', '/.well-known/.;/session-backup', '/.well-known/session-backup/.;a', '/.well-known/x;y/..;z/session-backup;',
        '/.well-known/a/b/..;/..;/session-backup', '/x/..;/.well-known/session-backup', '/.well-known/session-backup/x/..;',
        '/.Well-Known/Session-Backup', '/.WELL-KNOWN/SESSION-BACKUP/', '/.well-known%5csession-backup', '/.well-known/session-backup%5c');
    for my $where (qw(on off native on/off plain nocanon rewritten)) {
        my @reached = grep { $front->get("/$where$_")->{status} != 404 } @spellings;
        is_deeply \@reached, [], "/$where/: the well-known path is 404 in all its spellings";
    }
    is_deeply [map { $front->get("/on/.well-known/session-backup", method => $_)->{status} } qw(GET HEAD POST PUT DELETE OPTIONS)], [(404) x 6],
        'for every method';
    my @others = ('/well-known/session-backup', '/.well-known/session-backups', '/.well-known/session-backup.html', '/.well-known', '/session-backup',
        '/x.well-known/session-backup', '/.well-known/xsession-backup', '/.well-known/session-backup/x', '/.well-known/..;/session-backup');
    is_deeply [map { $front->get("/on$_")->{status} } @others], [(200) x @others], 'and no other path is';
}

# ids: who gets the request
sub at { my ($r) = @_; return $r->{status} == 200 ? Site::member_of($r) : "status $r->{status}" }
sub five { my (%o) = @_; my %m = map { at($front->get($o{path} // '/native/x', %o)) => 1 } 1 .. 5; return join ' ', sort keys %m }

my $big = 'x' x 100_000;
my @formed = (      # name, what is sent, the id in it; all of member r2
    ['plain', { cookie => 'JSESSIONID=A1.r2' }, 'A1'],
    ['quoted', { cookie => 'JSESSIONID="A2.r2"' }, 'A2'],
    ['percent-encoded', { cookie => 'JSESSIONID=%41%33%2Er2' }, 'A3'],
    ['a stale duplicate first', { cookie => 'JSESSIONID=OLD.gone; JSESSIONID=A4.r2' }, 'A4'],
    ['a malformed duplicate first', { cookie => 'JSESSIONID=O\\LD.r1; JSESSIONID=A5.r2' }, 'A5'],
    ['a dotted id', { cookie => 'JSESSIONID=s:A6.sig.nature.r2' }, 's:A6.sig.nature'],
    ['an id with a node', { cookie => 'JSESSIONID=A7-n2.r2' }, 'A7-n2'],
    ['in the URL', { path => '/native/x;jsessionid=A8.r2' }, 'A8'],
    ['in the URL, with a query', { path => '/native/x;jsessionid=A9.r2?b=c' }, 'A9'],
    ['in the URL and a cookie', { path => '/native/x;jsessionid=B1.r2', cookie => 'JSESSIONID=OTHER.r1' }, 'B1'],
    ['a look-alike in the query', { path => '/native/x?MYjsessionid=x.r1', cookie => 'JSESSIONID=B2.r2' }, 'B2'],
    ['a look-alike in the path', { path => '/native/x;myjsessionid=x.r1', cookie => 'JSESSIONID=B3.r2' }, 'B3'],
    ['a look-alike of a cookie', { cookie => 'XJSESSIONID=x.r1; a=JSESSIONID=x.r1; JSESSIONID=B4.r2' }, 'B4'],
    ['behind a cookie of 100 KB', { cookie => "a=$big; JSESSIONID=B5.r2" }, 'B5'],
    ['beside 8-bit bytes', { cookie => "a=\xe4\xff\x80; JSESSIONID=B6.r2" }, 'B6'],
);
my @malformed = (
    ['CRLF in a path parameter', { path => '/native/x;jsessionid=a%0d%0aSet-Cookie:%20b.r2' }],
    ['CRLF in a cookie, encoded', { cookie => 'JSESSIONID=a%0d%0ab.r2' }],
    ['NUL', { cookie => 'JSESSIONID=a%00b.r2' }],
    ['8-bit bytes', { cookie => "JSESSIONID=a\xe4b.r2" }],
    ['a value of 100 KB', { cookie => "JSESSIONID=$big.r2" }],
    ['a look-alike alone, in the query', { path => '/native/x?MYjsessionid=x.r2' }],
    ['a look-alike alone, in the path', { path => '/native/x;MYjsessionid=x.r2' }],
    ['a parameter of the query', { path => '/native/x?jsessionid=x.r2' }],
    ['half a quote', { cookie => 'JSESSIONID="a.r2' }],
);
is five(%{ $_->[1] }), 'r2', "$_->[0]: at its member" for @formed;
is five(cookie => 'JSESSIONID=.r2'), 'r2', 'no id, only a route (ROUTEID=.route): no session, and sticky as stock';
# r2 has had all requests so far: byrequests sends it nobody who is free to go elsewhere
unlike five(%{ $_->[1] }), qr/r2|status/, "$_->[0]: no session, and it steers nobody" for @malformed;
{
    my $r = $front->get('/on/x;jsessionid=a%0d%0aSet-Cookie:%20b=c%0d%0a%0d%0ad.r2');
    is_deeply [$r->{head}{'set-cookie'}, $r->{body} =~ /^(< (?!host|x-forw|connection|session-backup-accept).*)/mg], [undef], 'CRLF makes no field for anybody';
}

# the member is gone: the same id, whatever it looks like
$member{r2}->kill9;
for my $f (@formed) {
    my ($name, $how, $id) = @$f;
    my $where = five(%$how);
    my ($entry) = grep { $_->{session} eq substr sha256_hex("balancer://native\0$id"), 0, 12 } @{ $status->()->{journal} };
    is_deeply [$where, $entry ? @$entry{qw(from outcome)} : ()], [$entry ? $entry->{to} : 'r1 or r3', 'r2', 'native'], "$name: moved once, under its id";
}
is_deeply [grep { $_ !~ /^r[13](?: r[13])?$/ } map { five(%{ $_->[1] }) } @malformed], [], 'and what is none is served';
is scalar @{ $status->()->{journal} }, scalar @formed, 'nothing else moved';
unlike $log->(), qr/\b(?:A[1-9]|B[1-6])\b|sig\.nature|Set-Cookie/, 'none of the ids is in the log';
$httpd->end;
$_->kill9 for @member{qw(r1 r3)};

# ---- Tomcats: what stands in the store is not what was put there ---------------------------------

# The store's own envelope (store_envelope.h) keeps accidents out, not people: who can write there can make one.
sub mix {
    use integer;
    no warnings 'portable';
    my ($h, $data) = @_;
    my $odd = 0x9e3779b97f4a7c15;
    my $step = sub { $h = ($h ^ $_[0]) * $odd; $h = (($h << 29) | (($h >> 35) & 0x1fffffff)) + $_[1] };
    $h ^= length $data;
    my @words = unpack 'q<' . int(length($data) / 8), $data;
    $step->(splice @words, 0, 2) for 1 .. 4 * int(length($data) / 64);
    $step->($_, 0) for @words;
    my $last = 0;
    $last = $last << 8 | ord for split //, substr $data, int(length($data) / 8) * 8;
    $step->($last, 0);
    $h = ($h ^ (($h >> 32) & 0xffffffff)) * $odd;
    return $h ^ (($h >> 29) & 0x7ffffffff);
}
my $seed = do { no warnings 'portable'; 0x73657373696f6e21 };
sub enveloped {
    my ($key, $head, $data) = @_;
    $head = substr $head, 0, 48;
    substr($head, 32, 8) = pack 'Q>', length $data if substr($head, 3, 1) eq 'V';
    return $head . pack("q>", mix(mix(mix($seed, $key), $head), $data)) . $data;
}

my ($head, $sealed) = (sub { substr $_[0], 0, 56 }, sub { substr $_[0], 56 });
# name, what becomes of the value ($_[0] its key, $_[1] itself, $_[2] another session's), what the log says. What is no
# value of the store counts as a node that gives no answer; what is one, but not ours to open, as no backup.
my @cases = (
    ['empty', sub { '' }, 'unavailable, .*not a value of this module, or cut short'],
    ['truncated', sub { substr $_[1], 0, -20 }, 'unavailable, .*longer or shorter than it says'],
    ['truncated to less than a head', sub { substr $_[1], 0, 30 }, 'unavailable, .*not a value of this module, or cut short'],
    ['truncated, and sent as if whole', sub { enveloped($_[0], $head->($_[1]), substr $sealed->($_[1]), 0, -20) }, 'missing, .*was changed'],
    ['truncated to the seal', sub { enveloped($_[0], $head->($_[1]), substr $sealed->($_[1]), 0, 31) }, 'missing, .*sealed record is truncated'],
    ['garbage', sub { join '', map { chr int rand 256 } 1 .. 500 }, 'unavailable, .*not a value of this module'],
    ['garbage, well packed', sub { enveloped($_[0], $head->($_[1]), join '', map { chr int rand 256 } 1 .. 500) }, 'missing, .*sealed record is (?:of|sealed)'],
    ['another session\'s', sub { $_[2] }, 'unavailable, .*checksum is wrong'],
    ['another session\'s, well packed', sub { enveloped($_[0], $head->($_[2]), $sealed->($_[2])) }, 'missing, .*of another session'],
    ['under another version', sub { my $h = $head->($_[1]); substr($h, 16, 8) = pack 'Q>', 1000; enveloped($_[0], $h, $sealed->($_[1])) }, 'missing, .*or version'],
    ['of a future store', sub { my $v = $_[1]; substr($v, 2, 1) = "\2"; $v }, 'unavailable, .*a format this version does not know'],
    ['of a future seal', sub { my $b = $sealed->($_[1]); substr($b, 1, 1) = "\7"; enveloped($_[0], $head->($_[1]), $b) }, 'missing, .*of a future format'],
    ['a claim where a backup should be', sub { my $b = $sealed->($_[1]); substr($b, 0, 1) = 'c'; enveloped($_[0], $head->($_[1]), $b) }, 'missing, .*of another kind'],
    ['one bit', sub { my $b = $sealed->($_[1]); substr($b, -30, 1) ^= "\x10"; enveloped($_[0], $head->($_[1]), $b) }, 'missing, .*was changed'],
    ['parts that are not there', sub { my $h = $head->($_[1]); substr($h, 3, 5) = 'M' . pack 'N', 4000; substr($h, 32, 8) = pack 'Q>', 200 << 20; enveloped($_[0], $h, '') },
        'unavailable, .*a part of the value is gone'],
    ['sealed with another key', undef, 'missing, .*sealed with another secret'],
);

my $site = Site->new(members => 2, nodes => 1);
my (@victims, $spare);
while (@victims < @cases + 3) {     # three more for the claims
    my $r = $site->get('/count');
    Site::member_of($r) eq 'tomcat1' or next;
    my $cookie = Site::cookie_of($r);
    $site->get('/count', cookie => $cookie) for 2, 3;
    my ($id) = $cookie =~ /=([^.]+)/;
    my $hex = sha256_hex("balancer://tomcats\0$id");
    push @victims, { cookie => $cookie, id => $id, hex => $hex, short => substr($hex, 0, 12), key => "ha:b:$hex" };
}
$_->{value} = $site->node_value(1, $_->{key}) for @victims;
ok enveloped(@{ $victims[0] }{qw(key value)}, $sealed->($victims[0]{value})) eq $victims[0]{value}, 'the store\'s envelope, made here';
unlike join('', map { $site->node_value(1, $_) } $site->node_keys(1)), qr/AtomicInteger|rO0AB|\xac\xed\x00\x05/, 'no state in the clear in the store';

my @claimed = splice @victims, @cases;
{
    my $v = $victims[$#cases];    # another httpd with another secret has written it
    my $own = $site->{secret};
    write_file("$dir/other", 'another secret of thirty-two bytes');
    chmod 0600, "$dir/other";
    $site->{secret} = "$dir/other";
    $site->restart_httpd;
    Site::count_of($site->get('/count', cookie => $v->{cookie})) == 4 or die "not counted\n";
    $site->{secret} = $own;
    $site->restart_httpd;
}
for my $i (0 .. $#cases) {
    my $make = $cases[$i][1] or next;
    $site->node_value(1, $victims[$i]{key}, $make->(@{ $victims[$i] }{qw(key value)}, $victims[$i - 1]{value}));
}
$site->tomcat(1)->kill9;
my $errors = sub { [grep { /\[session_ha:/ } split /\n/, $site->error_log] };
for my $i (0 .. $#cases) {
    my ($v, $name, $what) = ($victims[$i], @{ $cases[$i] }[0, 2]);
    my $before = @{ $errors->() };
    my $r = $site->get('/count', cookie => $v->{cookie});
    is_deeply [$r->{status}, Site::count_of($r), Site::member_of($r)], [200, 1, 'tomcat2'], "$name: the request goes on, with a new session";
    my @lines = @{ $errors->() };
    my @new = grep { !/:debug\]/ } @lines[$before .. $#lines];
    ok @new == 1 && $new[0] =~ /\Q$v->{short}\E moved from tomcat1 to tomcat2 \((?:connect|error)\): $what/, '... one line says why' or diag join "\n", @new;
    my ($outcome) = $what =~ /^(\w+)/;
    is_deeply [@{ $site->status->{journal}[0] }{qw(session from to outcome epoch bytes)}], [$v->{short}, 'tomcat1', 'tomcat2', $outcome, 2, 0], '... and so does the journal';
}

# A claim that is none: the backup is there, and every httpd comes to the same member without it.
my $real = $site->node_value(1, "ha:c:$victims[$#cases]{hex}:2");
my @forged = (
    ['garbage', sub { 'x' x 200 }, 'us$'],          # no value of the store: it makes room
    ['another session\'s', sub { enveloped($_[0], $head->($real), $sealed->($real)) }, 'of another session'],
    ['sealed with no key of ours', sub { my $b = $sealed->($real); substr($b, 2, 2) ^= "\xff\xff"; enveloped($_[0], $head->($real), $b) },
        'sealed with another secret'],
);
for my $i (0 .. $#forged) {
    my ($v, $name, $make, $what) = ($claimed[$i], @{ $forged[$i] });
    $site->node_value(1, "ha:c:$v->{hex}:2", $make->("ha:c:$v->{hex}:2"));
    my @r = $site->parallel(6, '/count', cookie => $v->{cookie});
    is_deeply [map { $_->{status} } @r], [(200) x 6], "a forged claim, $name: all answered";
    is_deeply [sort { $a <=> $b } map { Site::count_of($_) } @r], [4 .. 9], '... and nothing is lost';
    my @lines = grep { /$v->{short}/ && !/:debug\]/ } @{ $errors->() };
    ok @lines == 1 && $lines[0] =~ /moved from tomcat1 to tomcat2 .*: restored, epoch 2, .*$what/, '... one line' or diag join "\n", @lines;
}
my $said = $site->error_log . Daemon::tail_of("$site->{dir}/access_log", 0);
my @told = grep { $said =~ /$_->{id}/ } @victims, @claimed;
is_deeply \@told, [], 'no session id is in a log';

# The members' own path, at a member that has it: 403 to whom the request is not signed by
my @paths = ('/.well-known/session-backup', '/.well-known/x/..;/session-backup', '/;/.well-known;/session-backup;a=b', '/%2ewell-known//session-backup');
is_deeply [map { $site->tomcat(2)->request('GET', $_)->{status} } @paths], [(403) x @paths], 'spelled like this it is the path';
is_deeply [map { $site->get($_)->{status} } @paths], [(404) x @paths], '... and no client comes there';

done_testing;
