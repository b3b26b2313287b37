# The stunnel recipe of doc/stores.md, word for word: only its ports, paths and the node's address are those of this test. A
# session goes through the tunnels and comes back. PostgreSQL and MariaDB speak TLS themselves, as it is written there.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use IO::Socket::INET;
use Time::HiRes qw(sleep);
use Daemon;
use Site;
use StoreNode;

plan tests => 15;

my $v = Apache::Test::vars();
my $dir = "$v->{t_logs}/tls-$$";
mkdir $_ or die "$_: $!\n" for $dir, "$dir/disk";

# ---- certificates ---------------------------------------------------------------------

sub openssl { system("openssl @_ >>$dir/openssl.log 2>&1") == 0 or die "openssl @_: see $dir/openssl.log\n" }
openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout $dir/ca.key -out $dir/ca.pem");
sub certificate {
    my ($name, @names) = @_;
    open my $fh, '>', "$dir/$name.ext" or die $!;
    print $fh 'subjectAltName=', join(',', @names), "\n";
    close $fh;
    openssl("req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $dir/$name.key -out $dir/$name.csr");
    openssl("x509 -req -in $dir/$name.csr -CA $dir/ca.pem -CAkey $dir/ca.key -CAcreateserial -days 2 -extfile $dir/$name.ext -out $dir/$name.pem");
    chmod 0600, "$dir/$name.key";
}
certificate('store1', 'DNS:store1.example');
certificate('httpd', 'DNS:httpd.example');
certificate('database', 'IP:127.0.0.1');

# ---- the recipe ---------------------------------------------------------------------------

my $doc = Daemon::tail_of("$v->{srcdir}/doc/stores.md", 0);
my ($tls) = $doc =~ /^## TLS\n(.*?)^## /ms or die "doc/stores.md has no part on TLS\n";
my ($node_side, $line, $httpd_side) = $tls =~ /^    # beside the node\n(.*?)\n    # beside httpd; (SessionHAStore \S+)\n((?:    [^\n]*\n)+)/ms
    or die "doc/stores.md has no recipe\n";
s/^    //mg for $node_side, $httpd_side;

my $memcached = Site::free_port();
my ($outer, $inner) = (Site::free_port(), Site::free_port());
my $node = Daemon->memcached($memcached);
# each text that is replaced must be there
sub with {
    my ($text, %other) = @_;
    for my $was (sort { length $b <=> length $a } keys %other) { $text =~ s/\Q$was\E/$other{$was}/g or die "the recipe has no '$was':\n$text" }
    return $text;
}
sub stunnel {
    my ($name, $port, $text) = @_;
    open my $fh, '>', "$dir/$name.conf" or die $!;
    print $fh "foreground = yes\npid =\nsyslog = no\ndebug = info\n", $text;
    close $fh;
    return Daemon->start(port => $port, log => "$dir/$name.log", cmd => ['stunnel4', "$dir/$name.conf"]);
}
my $beside_node = stunnel('node', $outer, with($node_side, '= 11212' => "= 127.0.0.1:$outer", '127.0.0.1:11211' => "127.0.0.1:$memcached", '/etc/stunnel' => $dir));
my %here = ('127.0.0.1:21211' => "127.0.0.1:$inner", 'store1.example:11212' => "127.0.0.1:$outer", '/etc/stunnel' => $dir);
my $beside_httpd = stunnel('httpd', $inner, with($httpd_side, %here));
my $url = with($line, '127.0.0.1:21211' => "127.0.0.1:$inner") =~ s/^SessionHAStore //r;

sub there_and_back {
    my ($site, $name) = @_;
    my $r = $site->get('/count');
    my $cookie = Site::cookie_of($r);
    $r = $site->get('/count', cookie => $cookie);
    my ($n) = Site::member_of($r) =~ /(\d+)/;
    $site->tomcat($n)->kill9;
    is Site::count_of($site->get('/count', cookie => $cookie)), 3, "$name: a session is stored and comes back";
    is $site->status->{stores}[0]{state}, 'up', 'the page says that it is up';
}
my $site = Site->new(members => 2, nodes => 0, store => $url);
there_and_back($site, 'through the tunnels of the recipe');
cmp_ok scalar(() = Daemon::tail_of("$dir/node.log", 0) =~ /TLSv1\.[23]/g), '>', 0, 'by TLS';

# who has no certificate of ours does not come in, and who is not store1.example is not believed
sub answer { my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $_[0], Timeout => 5) or return ''; syswrite $s, "version\r\n"; sysread $s, my $line, 100; return $line // '' }
like answer($inner), qr/^VERSION/, 'the tunnel leads to memcached';
unlike answer($outer), qr/VERSION/, 'not without TLS';
my ($bare, $other) = (Site::free_port(), Site::free_port());
my $nobody = stunnel('nobody', $bare, with($httpd_side, %here, '127.0.0.1:21211' => "127.0.0.1:$bare") =~ s/^(?:cert|key) .*\n//mgr);
unlike answer($bare), qr/VERSION/, 'not without a certificate';
my $false = stunnel('false', $other, with($httpd_side, %here, '127.0.0.1:21211' => "127.0.0.1:$other", 'checkHost   = store1.example' => 'checkHost   = store2.example'));
unlike answer($other), qr/VERSION/, 'and another node is not believed to be this one';
my ($own, $direct) = (Site::free_port(), Site::free_port());
my ($flags) = $doc =~ /`-Z -o (ssl_[^`]*)`/ or die "no memcached -Z in doc/stores.md\n";
my $speaks_tls = Daemon->memcached($own, '-Z', '-o', with($flags, map { ("$_=\xe2\x80\xa6" => "$_=$dir/" . (/ca/ ? 'ca.pem' : /key/ ? 'store1.key' : 'store1.pem')) } qw(ssl_chain_cert ssl_key ssl_ca_cert)));
my $to_it = stunnel('direct', $direct, with($httpd_side, %here, '127.0.0.1:21211' => "127.0.0.1:$direct", 'store1.example:11212' => "127.0.0.1:$own"));
my $said = '';
for (1 .. 20) { last if ($said = answer($direct)) =~ /VERSION/; sleep 0.2 }
like $said, qr/^VERSION/, 'memcached -Z in the place of the tunnel beside the node';
$_->end for $nobody, $false, $to_it, $speaks_tls, $beside_httpd;

# ---- databases -----------------------------------------------------------------------------------

my @files = (cert => "$dir/database.pem", key => "$dir/database.key", ca => "$dir/ca.pem");
my %file = @files;
my $pg = StoreNode->new('dbd:pgsql', dir => $dir, disk => "$dir/disk", name => 'pgsql',
    more => ['-c', 'ssl=on', map { ('-c', "ssl_${_}_file=$file{$_}") } sort keys %file]);
open my $hba, '>', "$dir/pgsql/data/pg_hba.conf" or die $!;
print $hba "local all all trust\nhostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n";
close $hba;
$pg->signal('HUP');
my ($how) = $doc =~ /^    SessionHAStore dbd:pgsql,.*?(,sslmode=\S+)$/m or die "no sslmode in doc/stores.md\n";
$how = with($how, '/etc/session_ha/ca.pem' => "$dir/ca.pem", '/etc/session_ha/httpd.pem' => "$dir/httpd.pem", '/etc/session_ha/httpd.key' => "$dir/httpd.key");
$site = Site->new(like => $site, members => 2, nodes => 0, store => $pg->url . $how);
there_and_back($site, 'PostgreSQL, ' . join ' ', $how =~ /(\w+)=/g);
$site = Site->new(like => $site, members => 2, nodes => 0, store => $pg->url . ',sslmode=disable');
for (1 .. 20) { $site->get('/count'); last if $site->error_log =~ /backup of session .*: unavailable/; sleep 0.6 }
is $site->status->{stores}[0]{state}, 'down', 'without TLS it lets nobody in';
like $site->error_log, qr/backup of session .*: unavailable/, 'and the log says that there is no backup';
$pg->end;

my $maria = StoreNode->new('dbd:mysql', dir => $dir, disk => "$dir/disk", name => 'mysql', more => [map { "--ssl-$_=$file{$_}" } sort keys %file]);
my ($group) = $doc =~ /^    (\[session_ha\]\n(?:    .*\n)+)/m or die "no [session_ha] in doc/stores.md\n";
($how) = $doc =~ /^    SessionHAStore dbd:mysql,.*?(,group=\S+)$/m or die "no group= in doc/stores.md\n";
open my $cnf, '>', "$dir/.my.cnf" or die $!;
print $cnf with($group =~ s/^    //mgr, '/etc/session_ha/ca.pem' => "$dir/ca.pem");
close $cnf;
{
    local $ENV{HOME} = $dir;            # its ~/.my.cnf, where an operator has /etc/mysql/my.cnf
    $site = Site->new(like => $site, members => 2, nodes => 0, store => $maria->url . $how);
}
there_and_back($site, "MariaDB, $how");
my ($accepted) = qx(mariadb --no-defaults --socket=$dir/mysql/sock -u root -N -e "SHOW GLOBAL STATUS LIKE 'Ssl_finished_accepts'") =~ /(\d+)/;
cmp_ok $accepted // 0, '>', 0, 'by TLS';
$maria->end;
