# Server, virtual host, <Proxy>, <Location>: which value counts, seen from what a request meets. A member that
# tells us the fields it got, and one that is disabled and whose sessions are nowhere.
use strict; use warnings;
use Apache::Test qw(-withtestmore);
use Apache::TestRequest qw(GET);
use JSON::PP ();
use Backend;
use Daemon;

my $v = Apache::Test::vars();
my $port = $v->{httpd1_port};
my ($m1, $m2) = map { "memcached://127.0.0.1:$v->{$_}" } qw(memcached1_port memcached2_port);

my $hosts = '';
sub host { my ($name, $conf) = @_; $hosts .= <<C }
<VirtualHost 127.0.0.1:$port>
ServerName $name.test
ProxyPass "/" "balancer://m/"
$conf
</VirtualHost>
C
host inherits => '';
host off      => 'SessionHA Off';
host native   => 'SessionHABackup native';
host asked    => "SessionHABackup native\nSessionHANative msm\n<Location \"/none\">\nSessionHANative none\n</Location>";
host none     => 'SessionHABackup off';
host proxy    => "SessionHA Off\n" . <<'C';
<Proxy "balancer://m">
    SessionHA On
    SessionHAOnMissing continue
</Proxy>
<Location "/off">
    SessionHA Off
</Location>
<Location "/scripts">
    SessionHAIgnore \.js$
</Location>
<Location "/page">
    SessionHAOnMissing /lost
</Location>
C
host id       => 'SessionHAId cookie=PHPSESSID';
host store    => "SessionHAStore $m1 $m2";
host copies   => "SessionHACopies 1\n<Location \"/two\">\nSessionHAStore $m1 $m2\n</Location>";
host both     => "<Proxy \"balancer://m\">\nSessionHACopies 1\n</Proxy>\n<Location \"/two\">\nSessionHAStore $m2 $m1\n</Location>";
host alone    => "SessionHAStore $m2\nSessionHACopies 32";

host route    => "SessionHARouteCookie R\n<Location \"/shop\">\nSessionHARouteCookie R Path=/shop \"SameSite=Strict; Secure\"\n</Location>";
host journal  => "SessionHAJournal 3\n<Location \"/x\">\nSessionHAJournal 2\n</Location>";
host 'https://tls', "ServerAlias tls.test\nSessionHARouteCookie R";

my $backend = Backend->start(port => $v->{backend1_port}, app => sub {
    my ($method, $uri, $head) = @_;
    (200, [], 'captured=' . (exists $head->{'session-backup-accept'} ? 1 : 0));
});
my $httpd = Daemon->httpd($port, <<C);
<Proxy "balancer://m">
    BalancerMember "http://127.0.0.1:$v->{backend1_port}" route=b1
    BalancerMember "http://127.0.0.1:$v->{backend2_port}" route=b2 status=+D
    ProxySet stickysession=SID
</Proxy>
SessionHAStore $m1
SessionHAStoreTimeout 5s
SessionHA On
SessionHAIgnore \\.css\$
SessionHAOnMissing 503
<VirtualHost 127.0.0.1:$port>
ServerName status.test
<Location "/session-ha-status">
    SetHandler session-ha-status
</Location>
</VirtualHost>
$hosts
C

sub get { my ($host, $path, @head) = @_; GET("http://127.0.0.1:$port$path", Host => "$host.test", @head, redirect_ok => 0) }

my @captured = (        # virtual host, path, is a backup wanted of the member?
    ['inherits', '/a',           1, 'from the server'],
    ['inherits', '/a.css',       0, 'SessionHAIgnore from the server'],
    ['off',      '/a',           0, 'the virtual host wins over the server'],
    ['native',   '/a',           0, 'SessionHABackup native in the virtual host'],
    ['none',     '/a',           0, 'SessionHABackup off in the virtual host'],
    ['proxy',    '/a',           1, '<Proxy> wins over the virtual host'],
    ['proxy',    '/off/a',       0, '<Location> wins over <Proxy>'],
    ['proxy',    '/a.js',        1, 'SessionHAIgnore of a section counts there'],
    ['proxy',    '/scripts/a.js', 0, '... and nowhere else'],
    ['proxy',    '/scripts/a.css', 0, '... and adds to the server\'s'],
);
my $n = 0;
my $lost = sub { "SID=" . (join '', map { chr 97 + rand 26 } 1 .. 12) . ++$n . ".b2" };      # a session that is nowhere
my @missing = (         # virtual host, path, cookie, status
    ['inherits', '/a',      $lost->(), 503, 'SessionHAOnMissing from the server'],
    ['off',      '/a',      $lost->(), 200, 'not with SessionHA Off'],
    ['native',   '/a',      $lost->(), 200, 'not in native mode: the application may have it'],
    ['asked',    '/a',      $lost->(), 503, 'SessionHANative in the virtual host: it has not'],
    ['asked',    '/none/a', $lost->(), 200, 'SessionHANative none in <Location>'],
    ['none',     '/a',      $lost->(), 200, 'not without backups'],
    ['proxy',    '/a',      $lost->(), 200, 'continue in <Proxy>'],
    ['proxy',    '/page/a', $lost->(), 302, 'a page in <Location>'],
    ['id',       '/a',      $lost->(), 200, 'SessionHAId: the balancer\'s cookie holds no session'],
    ['id',       '/a',      $lost->() . '; PHPSESSID=abc', 503, '... but the cookie that was named'],
    ['store',    '/a',      $lost->(), 503, 'SessionHAStore in the virtual host'],
    ['copies',   '/two/a',  $lost->(), 503, 'SessionHAStore in <Location>, SessionHACopies in the virtual host'],
    ['both',     '/two/a',  $lost->(), 503, 'SessionHAStore in <Location>, SessionHACopies in <Proxy>'],
);
my $second = Daemon->memcached($v->{memcached2_port});
my @route = (           # virtual host, path, cookie, Set-Cookie
    ['inherits', '/a',      'A=b',      undef, 'SessionHARouteCookie: none by default'],
    ['route',    '/a',      'A=b',      'R=.b1; Path=/; HttpOnly; SameSite=Lax', 'in the virtual host'],
    ['route',    '/a',      'R=.gone',  'R=.b1; Path=/; HttpOnly; SameSite=Lax', 'written anew'],
    ['route',    '/a',      'R=.b1',    undef, 'known to the client'],
    ['route',    '/shop/a', 'A=b',      'R=.b1; Path=/shop; HttpOnly; SameSite=Strict; Secure', 'attributes, in <Location>'],
    ['tls',      '/a',      'A=b',      'R=.b1; Path=/; HttpOnly; SameSite=Lax; Secure', 'https'],
);
plan tests => @captured + @missing + @route + 5;

for my $c (@captured) {
    my ($host, $path, $want, $name) = @$c;
    is get($host, $path)->content, "captured=$want", "$host.test$path: $name";
}
for my $c (@missing) {
    my ($host, $path, $cookie, $want, $name) = @$c;
    my $r = get($host, $path, Cookie => $cookie);
    is $r->code, $want, "$host.test$path: $name";
    is $r->header('Location'), '/lost', '... its address' if $want == 302;
}

for my $c (@route) {
    my ($host, $path, $cookie, $want, $name) = @$c;
    is get($host, $path, Cookie => $cookie)->header('Set-Cookie'), $want, "$host.test$path: $name";
}

# the nodes stand in several stores (m1; m1 and m2 with 2 copies; with 1; m2 alone), and in the status once
my $status = JSON::PP::decode_json(get('status', '/session-ha-status?format=json')->content);
is_deeply [sort map { $_->{node} } @{ $status->{stores} }], [sort $m1, $m2], 'the nodes of all sections are there';

is scalar @{ $status->{journal} }, 3, 'SessionHAJournal: the largest number that is said anywhere';

# what an operator does when it is all too much
$httpd->end;
$httpd = Daemon->httpd($port, "SessionHAStore $m1\n<Location \"/x\">\nSessionHAStore $m2\n</Location>\n"
    . "<Location \"/session-ha-status\">\nSetHandler session-ha-status\n</Location>");
my $r = GET("http://127.0.0.1:$port/session-ha-status?format=json");
is_deeply JSON::PP::decode_json($r->content)->{stores}, [], 'SessionHA Off: no store is opened';
is $r->code, 200, '... and the status says so';
