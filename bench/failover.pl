#!/usr/bin/perl
# failover.pl - a member dies (kill -9) or hangs (SIGSTOP) under load: what the users see, side by side.
#
# Three real Tomcats with the shop of t/webapp, one proxy before them after the other: stock httpd, mod_jk, HAProxy, each
# with the settings of an administrator who wants to survive this, and httpd with mod_session_ha. Sessions count up, each
# over several connections at once, and each connection asks again and again for a page that takes MS milliseconds. Some
# seconds later the member comes back.
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

my $sessions = $ENV{SESSIONS} || 200;
my $connections = 2;                        # a session
my $ms = $ENV{MS} // 60;
my $posts = $ENV{POSTS} // 20;              # percent
my $pause = 1;                              # between two requests of a connection, 0.5 to 1.5 of it
my $rounds = $ENV{ROUNDS} || 3;
my ($lead, $away) = (3, 4);                 # s before the event; after it, the member comes back
my $later = 7;                              # s from then to the end of the run
my $patience = 10;                          # of a user

# ---- the contestants ---------------------------------------------------------------

my @tomcats;
my $secret = "$Bench::dir/secret";
my $ledger = "$Bench::dir/ledger";      # what the POSTs did

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

my $runs = 0;

# A GET, or a POST that the shop writes down: in the ledger it can be seen whether it ran, and how often.
sub send_request {
    my ($c, $port) = @_;
    if (!$c->{socket}) {
        $c->{socket} = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp') or return 0;
        setsockopt $c->{socket}, IPPROTO_TCP, TCP_NODELAY, 1;
        fcntl $c->{socket}, F_SETFL, O_NONBLOCK;
    }
    my $s = $c->{session};
    my $jar = $s->{jar};
    $c->{method} = $s->{id} && rand(100) < $posts ? 'POST' : 'GET';
    my $what = $c->{method} eq 'POST' ? 'tick?rid=p' . ++$runs . "&ms=$ms" : $s->{id} ? "count?ms=$ms" : 'count';
    my $cookie = %$jar ? 'Cookie: ' . join('; ', map { "$_=$jar->{$_}" } sort keys %$jar) . "\r\n" : '';
    my $request = "$c->{method} /$what HTTP/1.1\r\nHost: bench.local\r\nUser-Agent: bench\r\n$cookie"
        . ($c->{method} eq 'POST' ? "Content-Length: 16\r\n\r\n0123456789abcdef" : "\r\n");
    @$c{qw(in sent id)} = ('', time, $s->{id});
    $c->{bound} = $s->{counts}{ $c->{id} // '' };
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

# What was answered. lost: it was asked with a session, and the answer is of another one, or of an older state.
sub judged {
    my ($c, $whole) = @_;
    my $s = $c->{session};
    my %answer = (method => $c->{method}, sent => $c->{sent}, at => time, ok => 0, member => '', lost => 0);
    if ($whole && $c->{in} =~ /\AHTTP\/1.1 200/ && $c->{in} =~ /count=(\d+).*?member=(\S+) id=([^.\s]+)/) {
        my ($count, $member, $id) = ($1, $2, $3);
        @answer{qw(ok member)} = (1, $member);
        $answer{lost} = $id ne $c->{id} || $count <= $c->{bound} if $c->{id};
        $s->{jar}{$1} = $2 while $c->{in} =~ /^Set-Cookie: ([^=]+)=([^;\r]*)/mgi;
        ($s->{id}) = $s->{jar}{JSESSIONID} =~ /^([^.]*)/;
        $s->{counts}{$id} = max($s->{counts}{$id} // 0, $count);
    }
    push @{ $s->{answers} }, \%answer;
    return $answer{ok};
}

# at: [seconds, what to do then], in order
sub load {
    my ($port, $seconds, @at) = @_;
    my @sessions = map { { jar => {}, counts => {}, answers => [] } } 1 .. $sessions;
    for my $s (@sessions) {                 # each begins with one connection
        my $c = { session => $s };
        send_request($c, $port) or die "the proxy does not answer\n";
        my $end = time + 10;
        until (my $got = received($c)) { die "no session\n" if !defined $got || time > $end; sleep 0.001 }
        judged($c, 1) or die "no session: $c->{in}\n";
    }
    my @conns = map { my $s = $_; map { { session => $s, due => time + rand $pause } } 1 .. $connections } @sessions;
    my ($began, %open) = (time);
    while ((my $now = time) < $began + $seconds) {
        (shift @at)->[1]->() if @at && $now - $began >= $at[0][0];
        my $next = $now + 0.05;
        for my $c (@conns) {
            next if !defined $c->{due};
            if ($c->{due} > $now) { $next = $c->{due} if $c->{due} < $next; next }
            delete $c->{due};
            if (send_request($c, $port)) { $open{ fileno $c->{socket} } = $c }
            else { judged($c, 0); delete $c->{socket}; $c->{due} = $now + $pause }
        }
        my $bits = '';
        vec($bits, $_, 1) = 1 for keys %open;
        select(my $ready = $bits, undef, undef, max(0, $next - time));
        for my $fd (keys %open) {
            my $c = $open{$fd};
            my $got = vec($ready, $fd, 1) ? received($c) : 0;
            next if defined $got && !$got && time - $c->{sent} < $patience;
            delete $open{$fd};
            my $ok = judged($c, $got);
            delete $c->{socket} if !$ok || $c->{in} =~ /^Connection: close/mi;
            $c->{due} = time + $pause * (0.5 + rand);
        }
    }
    judged($_, 0) for grep { time - $_->{sent} > 1 } values %open;      # hung to the end
    return @sessions;
}

# ---- one event ----------------------------------------------------------------------------

my %trips;

sub runs_twice {
    open my $fh, '<', $ledger or return 0;
    my %n;
    $n{ (split)[0] }++ while <$fh>;
    return scalar grep { $_ > 1 } values %n;
}

sub once {
    my ($start, $event) = @_;
    unlink $ledger;
    my $h = $start->();
    ref $h or return $h;
    my $victim = $tomcats[0];
    my ($when, $back);
    my @sessions = load($h->{port}, $lead + $away + $later,
        [$lead, sub { $when = time; $event eq 'kill' ? $victim->kill9_at_once : $victim->stop_signal }],
        [$lead + $away, sub { $back = time; $event eq 'kill' ? $victim->wait_gone->launch : $victim->cont }]);
    Bench::stop($h->{pid});
    $victim->wait_ready;
    if ($h->{at} && open my $log, '<', "$h->{at}/error_log") {
        while (my $line = <$log>) { $trips{$event}{$1}++ if $line =~ /\bmoved from .* (\d+) store round trips/ }
    }
    my %r = (requests => 0, affected => 0, GET => 0, POST => 0, twice => runs_twice(), lost => 0, again => 0, split => 0, first => [], slowest => 0);
    for my $s (@sessions) {
        my @before = grep { $_->{at} < $when } @{ $s->{answers} };
        # what the member had answered when it was hit came through, and shows nothing
        my @since = sort { $a->{at} <=> $b->{at} } grep { $_->{at} >= $when && !($_->{member} eq $victim->route && $_->{sent} < $when) } @{ $s->{answers} };
        my @good = grep { $_->{ok} } @since;
        $r{requests} += @{ $s->{answers} };
        $r{ $_->{method} }++ for grep { !$_->{ok} } @since;
        $r{slowest} = max($r{slowest}, map { $_->{at} - $_->{sent} } @good);
        next if !@before || $before[-1]{member} ne $victim->route;
        $r{affected}++;
        my @moved = grep { $_->{member} ne $victim->route } @good;
        $r{lost}++ if grep { $_->{lost} && $_->{sent} < $back } @good;
        $r{again}++ if grep { $_->{lost} && $_->{sent} >= $back } @good;
        $r{split}++ if uniq(map { $_->{member} } @moved) > 1;
        my @asked = grep { $_->{method} eq 'GET' } @since or next;
        my ($answer) = grep { $_->{method} eq 'GET' } @moved;
        push @{ $r{first} }, $answer ? $answer->{at} - max($when, min(map { $_->{sent} } @asked)) : 99;
    }
    return \%r;
}

# ---- all of it ------------------------------------------------------------------------------

open my $fh, '>', $secret or die "$secret: $!";
print $fh 'bench' x 8, "\n";
close $fh;
chmod 0600, $secret;
@tomcats = Tomcat->start_all(map { { route => "tomcat$_", valve => 1, secret_file => $secret, context => '', java_options => ["-Dledger=$ledger"] } } 1 .. 3);

for my $event (split /,/, $ENV{EVENTS} || 'kill,stop') {
    my %got;
    for my $round (1 .. $rounds) {
        my @order = @contestants;
        push @order, shift @order for 2 .. $round;      # the members' JVMs get warmer
        for my $contestant (@order) {
            my ($name, $start) = @$contestant;
            next if $ENV{ONLY} && $name !~ /$ENV{ONLY}/;
            next if ref $got{$name} eq 'SCALAR';
            my $r = once($start, $event);
            if (!ref $r) { $got{$name} = \"$r"; next }
            push @{ $got{$name} }, $r;
            print STDERR sprintf "# %s, round %d, %s: %d requests, failed %d GETs and %d POSTs, lost %d, first good %.1f ms\n", $event, $round, $name,
                @$r{qw(requests GET POST lost)}, 1000 * Bench::median(@{ $r->{first} });
        }
    }
    Bench::table(sprintf('%s of one of three Tomcats: %d sessions over %d connections each, requests of %d ms, %d%% of them POSTs; %d rounds',
            $event eq 'kill' ? 'kill -9' : 'SIGSTOP', $sessions, $connections, $ms, $posts, $rounds),
        ['', 'requests', 'failed GETs', 'failed POSTs', 'POSTs run twice', 'sessions lost', 'split', 'lost again', 'first good, ms', 'worst', 'slowest'],
        map {
            my ($name) = @$_;
            my $v = $got{$name};
            my $sum = sub { my ($k) = @_; sum0(map { $_->{$k} } @$v) };
            !$v ? () : ref $v eq 'SCALAR' ? [$name, $$v, ('') x 9] : [$name,
                map({ $sum->($_) } qw(requests GET POST twice)),
                $sum->('lost') . ' of ' . $sum->('affected'),
                map({ $sum->($_) } qw(split again)),
                map { sprintf '%.0f', 1000 * $_ } Bench::median(map { @{ $_->{first} } } @$v), max(map { @{ $_->{first} } } @$v), max(map { $_->{slowest} } @$v)];
        } @contestants);
}
Bench::table('Round trips to the store of one failover, from the log of the runs above', ['round trips', map { $_ eq 'kill' ? 'after kill -9' : 'after SIGSTOP' } sort keys %trips],
    map { my $n = $_; [$n, map { $trips{$_}{$n} // 0 } sort keys %trips] } sort { $a <=> $b } uniq(map { keys %$_ } values %trips)) if %trips;
