#!/usr/bin/perl
# failover.pl - a member dies (kill -9) or hangs (SIGSTOP) under load: what the users see, side by side.
#
# Three real Tomcats with the shop of t/webapp, one proxy before them after the other: stock httpd, mod_jk, HAProxy, each
# with the settings of an administrator who wants to survive this, and httpd with mod_session_ha. Sessions count up, each
# over several connections at once, and each connection asks again and again for a page that takes MS milliseconds.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin, "$FindBin::Bin/../t/lib";
use Bench;
use Fcntl qw(F_SETFL O_NONBLOCK);
use IO::Socket::INET;
use List::Util qw(max min shuffle sum0 uniq);
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(sleep time);
use Tomcat;

my $sessions = $ENV{SESSIONS} || 48;
my $connections = 2;                        # a session
my $ms = $ENV{MS} // 60;
my $pause = 0.15;                           # between two requests of a connection
my $rounds = $ENV{ROUNDS} || 3;
my ($lead, %after) = (2.5, kill => 6, stop => 10);
my $patience = 10;                          # of a user

# ---- the contestants ---------------------------------------------------------------

my @tomcats;
my $secret = "$Bench::dir/secret";

sub balancer_members {
    my ($more) = @_;
    return [map { { route => $_->route, url => 'http://127.0.0.1:' . $_->http_port, more => $more } } @tomcats];
}

sub stock {
    my (%a) = @_;
    return Bench::httpd(%a, proxyset => 'failontimeout=On ' . ($a{proxyset} // ''),
        modules => [qw(proxy_http proxy_balancer proxy_hcheck lbmethod_byrequests)],
        members => balancer_members('connectiontimeout=1 timeout=2 retry=5 hcmethod=GET hcuri=/ping hcinterval=500ms hcfails=1 hcpasses=1'));
}

sub session_ha {
    my $store = Bench::memcached();
    return stock(load => 1, conf => <<C);
LogLevel session_ha:info
SessionHA On
SessionHAStore $store
SessionHASecret file:$secret
SessionHAMemberTimeout 300ms
C
}

sub jk {
    -e "$Bench::config{libexecdir}/mod_jk.so" or return 'libapache2-mod-jk is not installed';
    my $file = "$Bench::dir/workers.properties";
    open my $fh, '>', $file or die "$file: $!";
    print $fh "worker.list=lb\nworker.lb.type=lb\nworker.lb.sticky_session=True\nworker.lb.recover_time=5\nworker.lb.retries=3\nworker.maintain=2\n",
        'worker.lb.balance_workers=', join(',', map { $_->route } @tomcats), "\n";
    for my $t (@tomcats) {
        my %w = (type => 'ajp13', host => '127.0.0.1', port => $t->ajp_port, ping_mode => 'A', ping_timeout => 500,
            socket_connect_timeout => 500, reply_timeout => 2000, connection_ping_interval => 1);
        print $fh map { "worker.@{[$t->route]}.$_=$w{$_}\n" } sort keys %w;
    }
    close $fh;
    return Bench::httpd(modules => [], conf => <<C);
LoadModule jk_module $Bench::config{libexecdir}/mod_jk.so
JkWorkersFile $file
JkLogFile $Bench::dir/jk.log
JkShmFile $Bench::dir/jk.shm
JkLogLevel error
JkWatchdogInterval 1
JkMount /* lb
C
}

sub haproxy {
    my ($haproxy) = grep { -x } '/usr/sbin/haproxy', '/usr/local/sbin/haproxy' or return 'haproxy is not installed';
    my $file = "$Bench::dir/haproxy.cfg";
    my $port = Bench::ports(1);
    open my $fh, '>', $file or die "$file: $!";
    print $fh <<C, map { "  server @{[$_->route]} 127.0.0.1:@{[$_->http_port]} cookie @{[$_->route]}\n" } @tomcats;
global
  maxconn 4000
defaults
  mode http
  timeout client 50s
  timeout http-keep-alive 30s
  timeout connect 500ms
  timeout server 2s
  retries 3
  option redispatch 1
  retry-on all-retryable-errors
frontend fe
  bind 127.0.0.1:$port
  default_backend be
backend be
  balance roundrobin
  cookie SRV insert indirect nocache
  option httpchk GET /ping
  timeout check 500ms
  default-server check inter 500ms fastinter 200ms downinter 500ms fall 2 rise 2 observe layer7 error-limit 3 on-error fastinter
C
    close $fh;
    return { port => $port, pid => Bench::start(port => $port, log => "$Bench::dir/haproxy.log", cmd => [$haproxy, '-db', '-f', $file]) };
}

my @contestants = (['stock httpd' => \&stock], ['mod_jk' => \&jk], ['HAProxy' => \&haproxy], ['mod_session_ha' => \&session_ha]);

# ---- the load -------------------------------------------------------------------------

sub send_request {
    my ($c, $port) = @_;
    if (!$c->{socket}) {
        $c->{socket} = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp') or return 0;
        setsockopt $c->{socket}, IPPROTO_TCP, TCP_NODELAY, 1;
        fcntl $c->{socket}, F_SETFL, O_NONBLOCK;
    }
    my $jar = $c->{session}{jar};
    @$c{qw(in sent bound)} = ('', time, $c->{session}{count});
    my $request = "GET /count?ms=$ms HTTP/1.1\r\nHost: bench.local\r\nUser-Agent: bench\r\n"
        . (%$jar ? 'Cookie: ' . join('; ', map { "$_=$jar->{$_}" } sort keys %$jar) . "\r\n" : '') . "\r\n";
    return (syswrite($c->{socket}, $request) // 0) == length $request;
}

# 1: the whole answer is there; 0: not yet; undef: the connection ended
sub received {
    my ($c) = @_;
    my $n = sysread $c->{socket}, $c->{in}, 65536, length $c->{in};
    return $!{EAGAIN} || $!{EINTR} ? 0 : undef if !defined $n;
    my $head = index $c->{in}, "\r\n\r\n";
    if ($head > 0) {
        return length $c->{in} >= $head + 4 + $1 ? 1 : 0 if $n && substr($c->{in}, 0, $head) =~ /^Content-Length: (\d+)/mi;
        return $c->{in} =~ /\r\n0\r\n\r\n\z/ ? 1 : 0 if $n && substr($c->{in}, 0, $head) =~ /^Transfer-Encoding: chunked/mi;
        return 1 if !$n;                    # ended by the end of the connection
    }
    return $n ? 0 : undef;
}

# What was answered: [sent, answered, ok, member, count at most known when it was sent, count, id]
sub judged {
    my ($c, $whole) = @_;
    my $s = $c->{session};
    my @answer = ($c->{sent}, time, 0, '', $c->{bound}, 0, '');
    if ($whole && $c->{in} =~ /\AHTTP\/1.1 200/ && $c->{in} =~ /count=(\d+).*?member=(\S+) id=([^.\s]+)/) {
        my ($count, $member, $id) = ($1, $2, $3);
        @answer[2, 3, 5, 6] = (1, $member, $count, $id);
        $s->{jar}{$1} = $2 while $c->{in} =~ /^Set-Cookie: ([^=]+)=([^;\r]*)/mgi;
        $s->{id} //= $id;
        $s->{count} = max($s->{count}, $count);
    }
    push @{ $s->{answers} }, \@answer;
    return $answer[2];
}

sub load {
    my ($port, $seconds, $at, $event) = @_;
    my @sessions = map { { jar => {}, count => 0, answers => [] } } 1 .. $sessions;
    for my $s (@sessions) {                 # each begins with one connection
        my $c = { session => $s };
        send_request($c, $port) or die "the proxy does not answer\n";
        my $end = time + 10;
        until (my $got = received($c)) { die "no session\n" if !defined $got || time > $end; sleep 0.001 }
        judged($c, 1) or die "no session: $c->{in}\n";
    }
    my @conns = map { my $s = $_; map { { session => $s, due => time + rand $pause } } 1 .. $connections } @sessions;
    my $began = time;
    my ($end, $done, %open) = ($began + $seconds, undef);
    while ((my $now = time) < $end + ($done ? 0 : 1)) {
        if (!$done && $now - $began >= $at) {
            $event->();
            $done = time;
        }
        for my $c (grep { defined $_->{due} && $_->{due} <= $now } @conns) {
            delete $c->{due};
            if (send_request($c, $port)) { $open{ fileno $c->{socket} } = $c }
            else { judged($c, 0); delete $c->{socket}; $c->{due} = $now + $pause }
        }
        my $bits = '';
        vec($bits, $_, 1) = 1 for keys %open;
        select(my $ready = $bits, undef, undef, 0.005);
        for my $fd (keys %open) {
            my $c = $open{$fd};
            my $got = vec($ready, $fd, 1) ? received($c) : 0;
            next if defined $got && !$got && time - $c->{sent} < $patience;
            delete $open{$fd};
            my $ok = judged($c, $got);
            delete $c->{socket} if !$ok || $c->{in} =~ /^Connection: close/mi;
            $c->{due} = time + $pause;
        }
    }
    judged($_, 0) for grep { time - $_->{sent} > 1 } values %open;      # hung to the end
    return ($done, @sessions);
}

# ---- one event ----------------------------------------------------------------------------

my %trips;

sub once {
    my ($start, $event) = @_;
    my $h = $start->();
    ref $h or return $h;
    my $victim = $tomcats[0];
    my ($when, @sessions) = load($h->{port}, $lead + $after{$event}, $lead,
        sub { $event eq 'kill' ? $victim->kill9_at_once : $victim->stop_signal });
    Bench::stop($h->{pid});
    if ($event eq 'kill') { $victim->wait_gone->launch->wait_ready } else { $victim->cont }
    if ($h->{at} && open my $log, '<', "$h->{at}/error_log") {
        while (my $line = <$log>) { $trips{$event}{$1}++ if $line =~ /\bmoved from .* (\d+) store round trips/ }
    }
    my %r = (affected => 0, failed => 0, lost => 0, split => 0, first => [], slowest => 0);
    for my $s (@sessions) {
        my @before = grep { $_->[1] < $when } @{ $s->{answers} };
        my @since = sort { $a->[1] <=> $b->[1] } grep { $_->[1] >= $when } @{ $s->{answers} };
        my @good = grep { $_->[2] } @since;
        $r{failed} += @since - @good;
        $r{slowest} = max($r{slowest}, map { $_->[1] - $_->[0] } @good);
        next if !@before || $before[-1][3] ne $victim->route;
        $r{affected}++;
        my @moved = grep { $_->[3] ne $victim->route } @good;
        $r{lost}++ if grep { $_->[5] <= $_->[4] || $_->[6] ne $s->{id} } @good;
        $r{split}++ if uniq(map { $_->[3] } @moved) > 1;
        push @{ $r{first} }, @moved ? $moved[0][1] - max($when, min(map { $_->[0] } @since)) : 99;
    }
    return \%r;
}

# ---- all of it ------------------------------------------------------------------------------

open my $fh, '>', $secret or die "$secret: $!";
print $fh 'bench' x 8, "\n";
close $fh;
chmod 0600, $secret;
@tomcats = Tomcat->start_all(map { { route => "tomcat$_", valve => 1, secret_file => $secret, context => '' } } 1 .. 3);

for my $event (split /,/, $ENV{EVENTS} || 'kill,stop') {
    my %got;
    for my $round (1 .. $rounds) {
        for my $contestant (@contestants) {
            my ($name, $start) = @$contestant;
            next if $ENV{ONLY} && $name !~ /$ENV{ONLY}/;
            next if ref $got{$name} eq 'SCALAR';
            my $r = once($start, $event);
            if (!ref $r) { $got{$name} = \"$r"; next }
            push @{ $got{$name} }, $r;
            print STDERR "# $event, round $round, $name: $r->{failed} failed, $r->{lost} lost\n";
        }
    }
    my $spread = sub { my ($v, $format) = @_; my @v = map { sprintf $format, $_ } sort { $a <=> $b } @$v;
        return $v[0] eq $v[-1] ? $v[0] : sprintf("$format [%s..%s]", Bench::median(@$v), @v[0, -1]) };
    Bench::table(sprintf('%s of one of three Tomcats: %d sessions over %d connections each, GETs of %d ms, %d rounds, median [lowest..highest]',
            $event eq 'kill' ? 'kill -9' : 'SIGSTOP', $sessions, $connections, $ms, $rounds),
        ['', 'sessions on it', 'failed requests', 'sessions lost', 'sessions split', 'first good answer, ms', 'the last one\'s, ms', 'slowest good answer, ms'],
        map {
            my ($name) = @$_;
            my $v = $got{$name};
            !$v ? () : ref $v eq 'SCALAR' ? [$name, $$v, ('') x 6] : [$name,
                map({ my $k = $_; $spread->([map { $_->{$k} } @$v], '%.0f') } qw(affected failed lost split)),
                $spread->([map { 1000 * Bench::median(@{ $_->{first} }) } @$v], '%.0f'),
                $spread->([map { 1000 * max(@{ $_->{first} }) } @$v], '%.0f'),
                $spread->([map { 1000 * $_->{slowest} } @$v], '%.0f')];
        } @contestants);
}
Bench::table('Round trips to the store of one failover, from the log of the runs above', ['round trips', map { $_ eq 'kill' ? 'after kill -9' : 'after SIGSTOP' } sort keys %trips],
    map { my $n = $_; [$n, map { $trips{$_}{$n} // 0 } sort keys %trips] } sort { $a <=> $b } uniq(map { keys %$_ } values %trips)) if %trips;
