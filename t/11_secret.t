# The state directory and the secret: made on the first start, kept, and refused when others can read it.
use strict; use warnings;
use Apache::Test qw(-withtestmore);
use File::Path qw(remove_tree);
use Daemon;

my $v = Apache::Test::vars();
my $port = $v->{httpd1_port};
my $store = "SessionHAStore memcached://127.0.0.1:$v->{memcached1_port}\n";
my $dir = Daemon->httpd_conf($port, '');
my $state = "$dir/session_ha";
remove_tree $state;

sub slurp { my $f = shift; open my $fh, '<', $f or return ''; local $/; scalar <$fh> }
sub spew  { my ($f, $mode, $text) = @_; open my $fh, '>', $f or die "$f: $!"; print $fh $text; close $fh; chmod $mode, $f }
sub log_of { slurp("$dir/error_log") }
# a start that must fail: its status, and what the log says of it
sub start {
    my $conf = shift;
    Daemon->httpd_conf($port, $conf);
    unlink "$dir/error_log";
    my $rc = system("timeout -k 5 20 '$v->{httpd}' -DFOREGROUND -d '$dir' -f '$dir/httpd.conf' >'$dir/stdio' 2>&1");
    return $rc >> 8, slurp("$dir/stdio") . log_of();
}

# the same for -t, which makes nothing
sub tested {
    my $conf = shift;
    Daemon->httpd_conf($port, $conf);
    my $said = qx('$v->{httpd}' -t -d '$dir' -f '$dir/httpd.conf' 2>&1);
    return $? >> 8, $said;
}

plan tests => 27 + 5;

# -- made on the first start
Daemon->httpd_conf($port, "SessionHA On\n$store");
is system("'$v->{httpd}' -t -f '$dir/httpd.conf' >/dev/null 2>&1"), 0, '-t is content';
ok !-e $state, '... and makes nothing';

my $httpd = Daemon->httpd($port, "SessionHA Off\n$store");
$httpd->end;
ok !-e $state, 'SessionHA Off makes nothing';

unlink "$dir/error_log";
$httpd = Daemon->httpd($port, "SessionHA On\n$store");
my @said = log_of() =~ /session_ha:notice.*(the state directory is .*)/g;
is scalar @said, 1, 'one notice says where';
like $said[0], qr/\Q$state\E/, '... in the runtime directory, if we are not root' or diag @said;
my $secret = slurp("$state/secret");
like $secret, qr/\A[0-9a-f]{64}\n\z/, 'a secret of 32 random bytes';
is sprintf('%o', (stat "$state/secret")[2] & 0777), '600', '... for its owner only';
is sprintf('%o', (stat $state)[2] & 0027), '0', '... in a directory that nobody else can list';
is join(' ', map { s,.*/,,r } glob "$state/*"), 'secret', '... and nothing is left beside it';

my ($gen) = log_of() =~ /resuming normal operations/g;
kill USR1 => $httpd->pid;
for (1 .. 200) { last if 2 <= (() = log_of() =~ /resuming normal operations/g); select undef, undef, undef, 0.05 }
is scalar(() = log_of() =~ /resuming normal operations/g), 2, 'a graceful restart';
$httpd->end;
$httpd = Daemon->httpd($port, "SessionHA On\n$store");
is slurp("$state/secret"), $secret, 'the next start keeps it';
$httpd->end;

# -- what is refused
chmod 0640, "$state/secret";
my ($rc, $log) = start("SessionHA On\n$store");
isnt $rc, 0, 'a secret that others can read stops the start';
like $log, qr{SessionHASecret: .*\Q$state/secret\E.*chmod 600 \Q$state/secret\E}, '... and the command is told';
chmod 0600, "$state/secret";

chmod 0770, $state;
($rc, $log) = start("SessionHA On\n$store");
isnt $rc, 0, 'a state directory that others can write stops the start';
like $log, qr{chmod go-w \Q$state\E}, '... and the command is told';
chmod 0710, $state;

spew("$dir/short", 0600, "  123456789012345 \n\n");
($rc, $log) = start("SessionHA On\n${store}SessionHASecret file:short");
isnt $rc, 0, 'a short secret stops the start';
like $log, qr{SessionHASecret: \Q$dir/short\E: .*16}, '... and the least is told';

($rc, $log) = start("SessionHA On\n${store}SessionHASecret file:typo");
isnt $rc, 0, 'a secret that was named and is not there stops the start';
like $log, qr{\Q$dir/typo\E does not exist.*openssl rand -hex 32}, '... and the command is told';
for my $file ('typo', 'short', $dir) {
    ($rc, $log) = tested("SessionHA On\n${store}SessionHASecret file:$file");
    ok $rc && $log =~ /SessionHASecret: /, "-t says so, too: $file" or diag $log;
}
is((tested("SessionHA Off\n${store}SessionHASecret file:typo"))[0], 0, '... where it is used');
is((tested("<Proxy \"balancer://x\">\nSessionHA On\nSessionHASecret file:$state/secret\n</Proxy>\n$store"))[0], 0, '... and nothing of a good one');
ok !-e "$dir/typo", '... it is not made: the servers that share it need the same';

spew("$dir/new", 0600, "1234567890123456\n");
($rc, $log) = start("SessionHA On\n${store}SessionHASecret file:new file:$dir/short");
isnt $rc, 0, 'the second is looked at too';

($rc, $log) = start("SessionHA On\n${store}SessionHASecret file:$dir");
isnt $rc, 0, 'a directory is no secret';

# -- what is not
$httpd = Daemon->httpd($port, "SessionHA Off\n${store}SessionHASecret file:typo");
ok $httpd, 'Off: a secret that nobody uses is not read';
$httpd->end;

$httpd = Daemon->httpd($port, "SessionHA On\n${store}SessionHASecret file:new file:new");
ok $httpd, 'relative to ServerRoot';
$httpd->end;

# -- two first starts at the same time agree
unlink "$state/secret";
my $other = $v->{httpd2_port};
my @pids = map {
    my $p = $_;
    Daemon->httpd_conf($p, "SessionHA On\n${store}DefaultRuntimeDir $dir\n");
    unlink "$v->{t_logs}/httpd.$p/error_log";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        exec "exec timeout 60 '$v->{httpd}' -X -f '$v->{t_logs}/httpd.$p/httpd.conf' >/dev/null 2>&1";
        exit 127;
    }
    $pid;
} $port, $other;
# the kernel takes connections before the secret is looked for: an answer says that the start is done
for my $p ($port, $other) {
    for (1 .. 600) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $p);
        last if $s && print({$s} "GET / HTTP/1.0\r\n\r\n") && defined readline $s;
        select undef, undef, undef, 0.05;
    }
}
kill TERM => @pids;
waitpid $_, 0 for @pids;
like slurp("$state/secret"), qr/\A[0-9a-f]{64}\n\z/, 'one of two wins';
is join(' ', map { s,.*/,,r } glob "$state/*"), 'secret', '... nothing is left of the other';
unlike slurp("$v->{t_logs}/httpd.$other/error_log") . log_of(), qr/session_ha:(?:emerg|error)/, '... and both start';
