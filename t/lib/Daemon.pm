package Daemon;
# Any server in its own process group; start waits for its port, kill9 takes the whole group down and waits
# until it is gone. END stops what is left, also when a test dies; setpriv --pdeathsig when it is killed.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);
use Apache::Test ();

# where the next one starts: local $Daemon::on = Hosts->new(...)->host(...)
our $on = { at => '127.0.0.1', in => [] };

my %live;
my $owner = $$;
$SIG{TERM} ||= sub { exit 1 };      # t/TEST's time-out: END is to run

sub start {
    my ($class, %a) = @_;               # port, cmd => [..], log, timeout, env => {..}
    defined(my $pid = fork) or die "fork: $!";
    if (!$pid) {
        POSIX::setpgid(0, 0);
        %ENV = (%ENV, %{ $a{env} }) if $a{env};
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $a{log} || '/dev/null'; open STDERR, '>&', \*STDOUT;
        exec qw(setpriv --pdeathsig KILL), @{ $on->{in} }, @{ $a{cmd} } or POSIX::_exit(127);
    }
    POSIX::setpgid($pid, $pid);
    $live{$pid} = 1;
    my $self = bless { pid => $pid, %a }, $class;
    my $end = time + ($a{timeout} || 30);
    until (IO::Socket::INET->new(PeerAddr => $on->{at}, PeerPort => $a{port}, Timeout => 1)) {
        if (waitpid($pid, POSIX::WNOHANG()) == $pid) {
            delete $live{$pid};
            die "@{$a{cmd}} died" . ($a{log} ? ", see $a{log}" : '') . "\n";
        }
        if (time > $end) {
            $self->kill9;
            die "@{$a{cmd}} does not listen on $a{port}\n";
        }
        sleep 0.05;
    }
    return $self;
}

sub memcached {
    my ($class, $port, @more) = @_;
    my $v = Apache::Test::vars();
    $v->{memcached} ne 'no' or die "memcached is missing (Debian: apt-get install memcached)\n";
    $class->start(port => $port, log => "$v->{t_logs}/memcached.$port.log",
        cmd => [$v->{memcached}, '-l', $on->{at}, '-p', $port, qw(-U 0 -m 64 -I 2m -t 1), @more]);
}

# user root, any password, database test
sub mariadb {
    my ($class, $port) = @_;
    my $dir = Apache::Test::vars()->{t_logs} . "/mariadb.$port";
    system("mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-name-resolve --datadir=$dir >$dir.log 2>&1") == 0
        or die "mariadb-install-db is missing or failed, see $dir.log (Debian: apt-get install mariadb-server-core)\n";
    mkdir "$dir/test";
    $class->start(port => $port, log => "$dir.log", timeout => 60, cmd => ['/usr/sbin/mariadbd', qw(--no-defaults --bind-address=127.0.0.1
        --skip-grant-tables --skip-networking=0 --innodb-buffer-pool-size=16M), "--datadir=$dir", "--socket=$dir/sock", "--port=$port"]);
}
sub sql {
    my ($self, $statement) = @_;
    open my $out, '-|', qw(mariadb --no-defaults -h 127.0.0.1 -u root -N -B test -P), $self->{port}, '-e', $statement or die "mariadb: $!";
    chomp(my @rows = <$out>);
    close $out or die "mariadb: $statement\n";
    return @rows;
}

# the configuration file of a further httpd, with the modules of the one under test
sub httpd_conf {
    my ($class, $port, $conf) = @_;
    my $v = Apache::Test::vars();
    my $dir = "$v->{t_logs}/httpd.$port";
    mkdir $dir;
    open my $fh, '>', "$dir/httpd.conf" or die "$dir: $!";
    print $fh <<C;
Include $v->{httpd_conf}
ServerRoot $dir
DefaultRuntimeDir $dir
PidFile $dir/httpd.pid
ServerName $on->{at}
Listen $on->{at}:$port
ErrorLog $dir/error_log
LogLevel info session_ha:debug
MaxMemFree 1
TypesConfig $v->{t_conf}/mime.types
DocumentRoot $v->{documentroot}
<IfModule mpm_prefork_module>
    # twenty at once are to be twenty at once: more servers are started one a second
    StartServers 24
    MinSpareServers 8
    MaxSpareServers 32
    MaxRequestWorkers 32
    ServerLimit 32
</IfModule>
<IfModule !mpm_prefork_module>
    ServerLimit 4
    StartServers 2
    ThreadsPerChild 10
    MaxRequestWorkers 40
</IfModule>
$conf
C
    close $fh or die "$dir: $!";
    return $dir;
}

# A further httpd. As a member "-X" makes it one process, and light; as a balancer it is left with its
# several children, all in one process group, so that kill9 is all of it.
sub httpd {
    my ($class, $port, $conf, @flags) = @_;
    @flags = ('-DFOREGROUND') unless @flags;
    my $v = Apache::Test::vars();
    my $dir = $class->httpd_conf($port, $conf);
    my $log = "$dir/error_log";
    my $before = -s $log || 0;
    my $self = $class->start(port => $port, log => "$dir/stdio", dir => $dir,
        cmd => [$v->{httpd}, @flags, '-d', $dir, '-f', "$dir/httpd.conf"]);
    # it listens before post_config, and only now is it started
    my $end = time + 60;
    until (tail_of($log, $before) =~ /resuming normal operations/) {
        if (waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid}) {
            delete $live{ $self->{pid} };
            die "httpd died, see $log\n";
        }
        die "httpd does not start, see $log\n" if time > $end;
        sleep 0.02;
    }
    return $self;
}

sub tail_of {
    my ($file, $offset) = @_;
    open my $fh, '<', $file or return '';
    seek $fh, $offset, 0;
    local $/;
    return scalar(<$fh>) // '';
}

sub pid { $_[0]{pid} }
sub kill9 { $_[0]->signal('KILL') }
sub end   { $_[0]->signal('TERM') }
# Waits until the whole group is gone. Between the signal and the end of the process the kernel still
# accepts and then resets: who means that window calls kill itself.
sub signal {
    my ($s, $sig) = @_;
    kill $sig => -$s->{pid};
    kill CONT => -$s->{pid} if $sig ne 'KILL';
    waitpid $s->{pid}, 0;
    for (1 .. 1000) { last unless kill 0 => -$s->{pid}; sleep 0.01 }
    delete $live{ $s->{pid} };
    return $?;
}
# a hung server: accepts (backlog), never answers; back when the kernel says that it stands
sub stop {
    my $s = shift;
    kill STOP => -$s->{pid};
    for (1 .. 1000) {
        last if tail_of("/proc/$s->{pid}/stat", 0) =~ /\)\s+T/;
        sleep 0.005;
    }
}
sub cont { kill CONT => -$_[0]{pid} }
END {
    if ($$ == $owner) {
        my $s = $?;
        for (keys %live) { kill KILL => -$_; waitpid $_, 0 }
        $? = $s;
    }
}
1;
