# Every directive against the real "apache2 -t": good values pass; a wrong one stops the start, with a
# message that names the directive and says what is allowed.
use strict; use warnings;
use Apache::Test qw(-withtestmore);
use Apache::TestRequest qw(GET);

my $v = Apache::Test::vars();
my $dir = "$v->{t_logs}/directives";
mkdir $dir;

# an application's own sessions, and the store where it is asked for them
sub native { "SessionHANative $_[0]\n<Proxy \"balancer://b\">\nSessionHA On\nSessionHABackup native\nSessionHAStore $_[1]\n</Proxy>\n" }

my @good = (
    'SessionHA On', 'SessionHA Off',
    'SessionHAStore memcached://127.0.0.1', 'SessionHAStore memcached://127.0.0.1:11211',
    'SessionHAStore memcached://127.0.0.1:11211 memcached://127.0.0.1:11212',
    'SessionHAStore memcached:///run/memcached.sock',
    'SessionHAStore lmdb:/var/lib/store', 'SessionHAStore lmdb:store', 'SessionHAStore file:store', 'SessionHAStore file:/var/lib/store', 'SessionHAStore lmdb:',
    'SessionHAStore lmdb:/var/lib/store?size=64m',
    'SessionHACopies 1', 'SessionHACopies 32',
    'SessionHAStoreTimeout 100', 'SessionHAStoreTimeout 1ms', 'SessionHAStoreTimeout 2s', 'SessionHAStoreTimeout 60s',
    'SessionHABackup sync', 'SessionHABackup async', 'SessionHABackup native', 'SessionHABackup off',
    'SessionHABackup Sync',
    'SessionHANative none', 'SessionHANative msm', 'SessionHANative Django', 'SessionHANative "sess:%{sid}"',
    native('tomcat-file', 'file:/srv/sessions'), native('"/srv/my sessions/%{issued}.session"', 'file:/srv/ha'),
    native('msm', 'memcached://127.0.0.1 memcached://127.0.0.2'), native('"PHPREDIS_SESSION:%{id}"', 'redis://127.0.0.1'),
    native('tomcat-jdbc', 'dbd:sqlite3,/srv/x.db'),
    native(q("SELECT 1 FROM `tomcat$sessions` WHERE id = %{issued} AND valid = '1'"), 'dbd:sqlite3,/srv/x.db'),
    # whatever the order of sections, each of them is right where it counts
    native('msm', 'memcached://127.0.0.1') . qq(<Proxy "balancer://c">\nSessionHA On\nSessionHAStore lmdb:/srv/store\n</Proxy>\n)
        . qq(<Proxy "balancer://d">\nSessionHABackup native\nSessionHA On\nSessionHANative tomcat-file\nSessionHAStore file:/srv/sessions\n</Proxy>),
    "SessionHA On\nSessionHABackup native\nSessionHAStore memcached://127.0.0.1\n<Location \"/x\">\nSessionHANative msm\n</Location>",
    'SessionHAId cookie=PHPSESSID', 'SessionHAId cookie=SID path=sid header=X-Session',
    'SessionHAId Header=X-Session Path=sid',
    'SessionHARouteCookie ROUTEID', 'SessionHARouteCookie ROUTEID Path=/shop Domain=example.com SameSite=None Secure HttpOnly Max-Age=3600',
    'SessionHARouteCookie ROUTEID "path=/shop; samesite=strict"',
    'SessionHATTL 1800', 'SessionHATTL 1s', 'SessionHATTL 30mi', 'SessionHATTL 30m', 'SessionHATTL 1H', 'SessionHATTL 30min', 'SessionHAStoreTimeout 50MS', 'SessionHATTL 8760h', 'SessionHATTL 2000ms',
    'SessionHAMaxSize 1', 'SessionHAMaxSize 64k', 'SessionHAMaxSize 5M', 'SessionHAMaxSize 1g',
    'SessionHAOnMissing continue', 'SessionHAOnMissing 503', 'SessionHAOnMissing /lost.html',
    'SessionHAOnMissing https://example.com/lost?why=1',
    'SessionHASecret file:secret', 'SessionHASecret file:/etc/secret file:/etc/secret.old',
    'SessionHAIgnore \.(?:css|js)$', "SessionHAIgnore \\.css\$\nSessionHAIgnore \\.js\$",
    'SessionHARetry off', 'SessionHARetry safe', 'SessionHARetry idempotent max=10 body=64m', 'SessionHARetry safe body=0', 'SessionHARetry Safe MAX=2',
    'SessionHAMemberTimeout off', 'SessionHAMemberTimeout 5', 'SessionHAMemberTimeout 500ms',
    'SessionHAFailback stay', 'SessionHAFailback home', 'SessionHAFailback home rate=1', 'SessionHAFailback home rate=10000',
    'SessionHADrain wait', 'SessionHADrain move',
    'SessionHAJournal 1', 'SessionHAJournal 65536',
);

my $time = qr/as a number with ms, s, m or h/;
my @wrong = (
    ['SessionHA maybe'              => qr/On or Off/],
    ['SessionHA'                    => qr/On or Off/],
    ['SessionHAStore'               => qr/allowed: 1 to 32.*lmdb.*memcached|allowed: 1 to 32.*memcached.*lmdb/s],
    ['SessionHAStore redi://h'      => qr/redi.*lmdb|redi.*memcached/s],
    ['SessionHAStore 127.0.0.1:11211' => qr/lmdb|memcached/],
    ['SessionHAStore memcached://'  => qr/memcached/],
    ['SessionHAStore memcached://h:0' => qr/memcached:..host:port/],
    ['SessionHAStore memcached://h:99999' => qr/memcached:..host:port/],
    ['SessionHAStore memcached://h:x' => qr/memcached:..host:port/],
    ['SessionHAStore lmdb:/x?size=1' => qr/lmdb:.path/],
    ['SessionHAStore memcached://127.0.0.1 lmdb:/x' => qr/scheme/],
    ['SessionHAStore' . ' memcached://h' x 33 => qr/allowed: 1 to 32/],
    (map { ["SessionHACopies $_"    => qr/allowed: a number from 1 to 32/] } qw(0 33 -1 two 1k 99999999999999999999)),
    ['SessionHACopies'              => qr/takes one argument.*1 to 32/],
    (map { ["SessionHAStoreTimeout $_" => qr/allowed: a time from 1ms to 60s, $time \(ms when it has none\)/] }
        qw(0 -5 61s 1h fast 10x ms)),
    ['SessionHAStoreTimeout'        => qr/takes one argument.*1ms to 60s/],
    (map { ["SessionHABackup $_"    => qr/'\Q$_\E' is not known; allowed: sync, async, native, off/] } qw(foo on syncc)),
    (map { ["SessionHANative $_"    => qr/ is not known; allowed: none, msm, php-memcached, connect-memcached, django, tomcat-file, tomcat-jdbc, or a template with %\{id}/] }
        'mms', 'key', '%{ID}', '%{id', '%{now}', '"%{id} %{route}"'),
    [native('msm', 'lmdb:/srv/store') => qr/'msm' is not kept in a store like lmdb:; allowed: SessionHAStore with nodes of memcached, libmemcached/],
    [native('tomcat-file', 'memcached://127.0.0.1') => qr/'tomcat-file' is not kept .* allowed: SessionHAStore with nodes of file/],
    [native('tomcat-jdbc', 'file:/srv/x') => qr/allowed: SessionHAStore with nodes of dbd/],
    [native('%{id}', 'lmdb:/srv/store') => qr/no application keeps its sessions in lmdb:; allowed: another SessionHAStore/],
    [native('"a key %{id}"', 'memcached://127.0.0.1') => qr/a key has no space/],
    [native('"../%{id}"', 'file:/srv/x') => qr/a file's name has no \.\./],
    [native('%{id}', 'dbd:sqlite3,/srv/x.db') => qr/it is a SELECT/],
    [native(q("SELECT 1 FROM s WHERE k = '%{id}'"), 'dbd:sqlite3,/srv/x.db') => qr/without quotes/],
    [native('msm', 'memcached://127.0.0.1') =~ s/backup native/Backup sync/ir => qr/needs SessionHABackup native/],
    ["SessionHANative msm\nSessionHA On" => qr/needs SessionHABackup native/],
    (map { ["SessionHAId $_"        => qr/allowed: cookie=NAME, path=NAME and header=NAME, at least one, each once/] }
        '', 'PHPSESSID', 'cookie=', 'cookie=a;b', '"cookie=a b"', 'query=x', 'cookie=a cookie=b'),
    (map { ["SessionHARouteCookie $_" => qr/allowed: a cookie's NAME, then any of Path=.*SameSite=Strict, Lax or None/] }
        '', '"a b"', 'a=b', 'R Path', 'R Path=shop', 'R Path=/a,b', 'R Domain=', 'R SameSite=no', 'R Max-Age=x', 'R Max-Age=-1', 'R Expires=now', 'R "Secure; x"'),
    (map { ["SessionHATTL $_"       => qr/allowed: a time from 1s to 8760h, $time \(s when it has none\)/] }
        qw(0 999ms 8761h never -1)),
    (map { ["SessionHAMaxSize $_"   => qr/allowed: a number from 1 to 1073741824, with k, m or g/] }
        qw(0 -1 2g 1025m 1kb k big 9999999999999999g)),
    (map { ["SessionHAOnMissing $_" => qr{allowed: continue, 503, or a URL that starts with /, http:// or https://}] }
        'stop', '404', 'lost.html', 'ftp://h/', '"/a b"', "\"/a\tb\""),
    (map { ["SessionHASecret $_"    => qr/allowed: file:PATH/] } 'secret', 'file:', 'env:SECRET', 'file:a b'),
    ['SessionHAIgnore (a'           => qr/'\(a' is no regular expression: .*at offset 2/],
    ['SessionHAIgnore a{2,1}'       => qr/no regular expression: .*at offset/],
    ['SessionHAIgnore'              => qr/takes one argument/],
    (map { ["SessionHARetry $_"     => qr/is not known; allowed: off, safe, idempotent/] } '', 'max=1', 'post'),
    ['SessionHARetry safe max'      => qr/allowed after the first word: max=N, body=BYTES/],
    ['SessionHARetry safe max=0'    => qr/allowed: a number from 1 to 10/],
    ['SessionHARetry safe body=65m' => qr/allowed: a number from 0 to 67108864/],
    (map { ["SessionHAMemberTimeout $_" => qr/allowed: .*off|off.*$time/] } qw(0 -1 never 10x)),
    (map { ["SessionHAFailback $_"  => qr/'\Q$_\E' is not known; allowed: stay, home/] } qw(back off)),
    ['SessionHAFailback home 5'     => qr/allowed after the first word: rate=N/],
    ['SessionHAFailback home rate=0' => qr/allowed: a number from 1 to 10000/],
    (map { ["SessionHADrain $_"     => qr/'\Q$_\E' is not known; allowed: wait, move/] } qw(on now)),
    (map { ["SessionHAJournal $_"   => qr/allowed: a number from 1 to 65536/] } qw(0 65537 many)),
);

my @sections = (
    ['the server',         "%s\n"],
    ['a virtual host',     "<VirtualHost *:80>\n%s\n</VirtualHost>\n"],
    ['<Proxy>',            "<Proxy \"balancer://b\">\n%s\n</Proxy>\n"],
    ['<Location>',         "<Location \"/x\">\n%s\n</Location>\n"],
);
my @examples = glob "$v->{srcdir}/conf/*.conf";
my %once = map { (split)[0] => $_ } reverse @good;

plan tests => @good + 2 * @wrong + 3 * (keys %once) + @examples + 3;

sub check {
    my $conf = shift;
    open my $fh, '>', "$dir/httpd.conf" or die $!;
    print $fh <<C; close $fh;
Include $v->{httpd_conf}
ServerRoot $dir
DefaultRuntimeDir $dir
ServerName 127.0.0.1
Listen 127.0.0.1:1
ErrorLog $dir/error_log
$conf
C
    my $out = qx("$v->{httpd}" -t -f "$dir/httpd.conf" 2>&1);
    return ($?, $out);
}

for my $line (@good) {
    my ($rc, $out) = check($line);
    is $rc, 0, $line =~ s/\n/; /r or diag $out;
}
for my $w (@wrong) {
    my ($line, $says) = @$w;
    my ($name) = split ' ', $line;
    my ($rc, $out) = check($line);
    isnt $rc, 0, "$line is refused";
    $out =~ s/\n(?!\z)/ /g;
    ok $out =~ /\b$name\b/ && $out =~ $says, "... and told what is allowed" or diag $out;
}
for my $name (sort keys %once) {
    for my $s (@sections[1 .. 3]) {
        my ($rc, $out) = check(sprintf $s->[1], $once{$name});
        is $rc, 0, "$name in $s->[0]" or diag $out;
    }
}
# the secrets that they name are looked at
open my $sh, '>', "$dir/session_ha.secret" or die $!;
chmod 0600, "$dir/session_ha.secret";
print $sh "a secret of thirty-two bytes or so\n";
close $sh;
sub shown { my $file = shift; open my $fh, '<', $file or die $!; return map { s,file:/etc/apache2/,file:$dir/,r } <$fh> }
for my $file (@examples) {
    my ($rc, $out) = check(join '', shown($file));
    is $rc, 0, 'conf/' . $file =~ s,.*/,,r . ' is accepted' or diag $out;
}
# what conf/session_ha.conf shows behind a #: the values are good ones
{
    my ($rc, $out) = check(join '', map { s/^#//r } grep { /^#SessionHA/ } shown("$v->{srcdir}/conf/session_ha.conf"));
    is $rc, 0, "the values that conf/session_ha.conf shows" or diag $out;
}
{
    open my $fh, '<', "$v->{srcdir}/conf/session_ha.conf" or die $!;
    my %all = map { /^#?(SessionHA\w*) / ? ($1 => 1) : () } <$fh>;      # all of them: t/check_directives.sh sees to it
    delete @all{ map { (split ' ', $_->[0])[0] } @wrong };
    is join(' ', sort keys %all), '', 'each directive has its wrong values here';
}
is GET('/ht/')->code, 500, 'not in .htaccess';
