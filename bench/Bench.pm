package Bench;
# What the programs of bench/ share: processes that end with us, free ports, a httpd and its configuration, tables.
use strict;
use warnings;
use File::Temp ();
use IO::Socket::INET;
use List::Util qw(max min);
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(sleep time);

our %config = %{ do("$ENV{HA_BUILD}/t/test_build_config.pl") || die "run it by `make bench`\n" };
our $dir = File::Temp::tempdir('ha-bench-XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{HA_KEEP});
chmod 0755, $dir;
chown scalar(getpwnam 'nobody'), -1, $dir unless $<;    # what httpd's child runs as writes there, callgrind in it too
print "# kept: $dir\n" if $ENV{HA_KEEP};

# ---- processes ------------------------------------------------------------------

my %live;
my $owner = $$;
$SIG{$_} ||= sub { exit 130 } for qw(INT TERM HUP);
$SIG{PIPE} = 'IGNORE';

# A command in a process group of its own; back when it accepts on its port.
sub start {
    my (%a) = @_;               # cmd => [..], port, log
    defined(my $pid = fork) or die "fork: $!";
    if (!$pid) {
        POSIX::setpgid(0, 0);
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $a{log} || '/dev/null'; open STDERR, '>&', \*STDOUT;
        { no warnings; exec qw(setpriv --pdeathsig KILL), @{ $a{cmd} }; }
        POSIX::_exit(127);
    }
    $live{$pid} = 1;
    my $end = time + 120;
    until (IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $a{port})) {
        if (waitpid($pid, POSIX::WNOHANG()) == $pid) {
            delete $live{$pid};
            die "@{$a{cmd}} ended at start, see $a{log} (HA_KEEP=1 keeps it)\n";
        }
        die "@{$a{cmd}} does not listen\n" if time > $end;
        sleep 0.05;
    }
    return $pid;
}

sub stop {
    my ($pid, $signal) = @_;
    kill $signal || 'TERM', -$pid;
    for (1 .. 200) {
        if (waitpid($pid, POSIX::WNOHANG()) == $pid) {
            delete $live{$pid};
            last;
        }
        sleep 0.05;
    }
    kill KILL => -$pid;
    waitpid $pid, 0 if delete $live{$pid};
}

END {
    if ($$ == $owner) {
        my $status = $?;
        for (keys %live) { kill KILL => -$_; waitpid $_, 0 }
        $? = $status;
    }
}

# Below the range of outgoing connections; so many in a row.
my $next = 10000 + $$ % 97 * 200;
sub ports {
    my ($n) = @_;
    TRY: for (1 .. 200) {
        my $first = $next;
        $next = $next + $n > 31000 ? 10000 : $next + $n;
        for (0 .. $n - 1) {
            IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $first + $_, Listen => 1, ReuseAddr => 1) or next TRY;
        }
        return $first;
    }
    die "no $n free ports in a row\n";
}

sub memcached {
    my (@more) = @_;
    my $port = ports(1);
    $config{memcached} ne 'no' or die "memcached is missing (Debian: apt-get install memcached)\n";
    start(port => $port, log => "$dir/memcached.log",
        cmd => [$config{memcached}, qw(-u nobody -l 127.0.0.1 -U 0 -m 256 -t 2 -p), $port, @more]);
    return "memcached://127.0.0.1:$port";
}

sub members {
    my ($n, $bytes, $when) = @_;
    my $first = ports($n);
    start(port => $first + $n - 1, log => "$dir/member.log", cmd => ["$ENV{HA_BUILD}/bench/member", $first, $n, $bytes || 0, $when || 'asked']);
    return map { { route => 'm' . ($_ + 1), url => 'http://127.0.0.1:' . ($first + $_) } } 0 .. $n - 1;
}

# ---- httpd ------------------------------------------------------------------------

my $servers = 0;

# members => [{ route, url, more }], conf, in_proxy, proxyset, modules => [..], load (the module), solo (one process, few threads)
sub httpd_conf {
    my (%a) = @_;
    my $at = "$dir/httpd" . ++$servers;
    mkdir $at;
    my @modules = (qw(mpm_event authz_core proxy slotmem_shm watchdog), @{ $a{modules} || [qw(proxy_http proxy_balancer lbmethod_byrequests)] });
    # what is built in cannot be loaded
    my $text = join "", map { "<IfModule !mod_$_.c>\nLoadModule ${_}_module $config{libexecdir}/mod_$_.so\n</IfModule>\n" } @modules;
    $text .= "LoadModule session_ha_module $config{module}\n" if $a{load};
    $text .= $a{solo} ? "StartServers 1\nServerLimit 1\nThreadsPerChild 4\nMaxRequestWorkers 4\nMinSpareThreads 1\nMaxSpareThreads 4\n"
                      : "StartServers 2\nServerLimit 2\nThreadLimit 256\nThreadsPerChild 256\nMaxRequestWorkers 512\n"
                      . "MinSpareThreads 1\nMaxSpareThreads 512\n";
    $text .= <<C;
ServerRoot $at
DefaultRuntimeDir $at
PidFile $at/httpd.pid
ErrorLog $at/error_log
LogLevel warn
ServerName bench.local
@{[ $< ? '' : "User nobody\nGroup nogroup" ]}
Listen 127.0.0.1:$a{port}
MaxConnectionsPerChild 0
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
Timeout 60
@{[ ref $a{conf} ? $a{conf}->() : $a{conf} // '' ]}
C
    $text .= <<C if $a{members};
<Proxy "balancer://bench">
@{[ map { "  BalancerMember $_->{url} route=$_->{route} " . ($_->{more} // '') . "\n" } @{ $a{members} } ]}
  ProxySet stickysession=JSESSIONID|jsessionid @{[ $a{proxyset} // '' ]}
@{[ $a{in_proxy} // '' ]}
</Proxy>
ProxyPass "/mark" "!"
ProxyPass "/" "balancer://bench/"
C
    open my $fh, '>', "$at/httpd.conf" or die "$at: $!";
    print $fh $text;
    close $fh or die "$at: $!";
    system('chown', '-R', 'nobody', $at) if !$<;
    return $at;
}

# its process, or with under => [..] that of the tool it runs under
sub httpd {
    my (%a) = @_;
    my $port = $a{port} //= ports(1);
    my $at = httpd_conf(%a);
    my $pid = start(port => $port, log => "$at/stdio",
        cmd => [@{ $a{under} || [] }, $config{httpd}, $a{solo} ? '-X' : '-DFOREGROUND', '-d', $at, '-f', "$at/httpd.conf"]);
    return { pid => $pid, port => $port, at => $at };
}

# ---- a browser that asks one thing after the other --------------------------------

sub connection {
    my ($port) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp') or die "connect: $!";
    setsockopt $s, IPPROTO_TCP, TCP_NODELAY, 1;
    return $s;
}

# [status, headers and body as they came]
sub get {
    my ($s, $path, $cookie) = @_;
    syswrite $s, "GET $path HTTP/1.1\r\nHost: bench.local\r\n"
        . "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
        . "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n"
        . ($cookie ? "Cookie: $cookie\r\n" : '') . "\r\n";
    my ($in, $whole) = ('', undef);
    until (defined $whole && length $in >= $whole) {
        sysread $s, $in, 65536, length $in or die "the connection ended\n";
        my $head = index $in, "\r\n\r\n";
        $whole = $head + 4 + ($in =~ /^Content-Length: (\d+)/mi ? $1 : die "no length\n") if $head > 0 && !defined $whole;
    }
    return [substr($in, 9, 3), $in];
}

# ---- tables -------------------------------------------------------------------------

sub table {
    my ($title, $head, @rows) = @_;
    my @width = map { my $i = $_; max map { length $_->[$i] } $head, @rows } 0 .. $#$head;
    print "\n$title\n\n";
    for my $row ($head, @rows) {
        my @cells = map { $_ ? sprintf("%*s", $width[$_], $row->[$_]) : sprintf("%-*s", $width[$_], $row->[$_]) } 0 .. $#$head;
        print '  ', join('  ', @cells), "\n";
    }
    $| = 1;
}

sub median {
    my @v = sort { $a <=> $b } @_;
    return @v % 2 ? $v[$#v / 2] : ($v[@v / 2 - 1] + $v[@v / 2]) / 2;
}

1;
