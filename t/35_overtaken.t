# A request is at a member, or on its way there, while another request moves its session away.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use IO::Socket::INET;
use Socket qw(inet_aton pack_sockaddr_in);
use Time::HiRes qw(sleep);
use Backend;
use Site;

plan tests => 12;

my $dir = Apache::Test::vars('t_logs') . "/overtaken-$$";
mkdir $dir or die "$dir: $!";
sub write_file { my ($file, $what) = @_; open my $fh, '>', $file or die "$file: $!"; print $fh $what; close $fh }
write_file("$dir/secret", 'a secret of thirty-two bytes or so');
chmod 0600, "$dir/secret";

sub wait_for { my ($what) = @_; for (1 .. 1000) { return if $what->(); sleep 0.02 } die "waited in vain\n" }

# r1 takes its time; r2 has no session and says so, as the Valve does, until it is told that there is none
my ($one, $two) = (Site::free_port(), Site::free_port());
my $slow = Backend->start(port => $one, app => sub {
    if ($_[1] =~ /slow/) {
        write_file("$dir/arrived", '');
        wait_for(sub { -e "$dir/go" });
    }
    return (200, [], "member=r1 stale\n");
});
my $heir = Backend->start(port => $two, app => sub {
    my ($method, $uri, $head, $body) = @_;
    return (425, ['Session-Missing: id="ABC"'], '') unless ($head->{'session-restore'} // '') =~ /none/ || $uri =~ /ok/;
    return (200, [], "member=r2 $method " . ($body // '') . "\n");
});
my $port = Site::free_port();
my $httpd = Daemon->httpd($port, <<C);
SessionHAStore lmdb:$dir/store
SessionHASecret file:$dir/secret
<Proxy "balancer://x">
  BalancerMember http://127.0.0.1:$one route=r1 retry=0 connectiontimeout=3
  BalancerMember http://127.0.0.1:$two route=r2
  ProxySet stickysession=JSESSIONID
  SessionHA On
</Proxy>
<Location "/balancer-manager">
  SetHandler balancer-manager
</Location>
ProxyPass "/balancer-manager" "!"
ProxyPass "/" "balancer://x/"
C
my $site = bless { port => $port, scheme => 'http' }, 'Site';
my $log = sub { Daemon::tail_of("$httpd->{dir}/error_log", 0) };

# by the operator's hand: r1 is disabled, its sessions move at once
sub disable {
    my ($on) = @_;
    my $page = $site->get('/balancer-manager')->{body};
    my ($nonce) = $page =~ /b=x&amp;(?:w=[^"]*?&amp;)?nonce=([0-9a-f-]+)/ or die "no nonce\n";
    my $r = $site->get('/balancer-manager', body => "w=http://127.0.0.1:$one&b=x&nonce=$nonce&w_status_D=$on",
        head => ["Referer: http://127.0.0.1:$port/balancer-manager", 'Content-Type: application/x-www-form-urlencoded']);
    $r->{status} == 200 or die "balancer-manager: $r->{status}\n";
}

# The answer of the member that it has left is not for the client; and the one that has it now does not have it.
{
    my $c = 'JSESSIONID=AAA.r1';
    my $s = $site->send_request('/slow', cookie => $c);
    wait_for(sub { -e "$dir/arrived" });
    disable(1);
    my $r = $site->get('/count', cookie => $c);
    is_deeply [$r->{status}, Site::member_of($r)], [200, 'r2'], 'moved while a request is at its member';
    write_file("$dir/go", '');
    $r = Site::read_answer($s);
    is_deeply [$r->{status}, Site::member_of($r)], [200, 'r2'], 'that one is answered by the new member too, "missing" and all';
    unlike $r->{body}, qr/stale/, 'not by what the old one has';
    disable(0);
}
{
    my $c = 'JSESSIONID=BBB.r1';
    unlink "$dir/arrived", "$dir/go";
    my $s = $site->send_request('/slow', cookie => $c, body => 'a=b');
    wait_for(sub { -e "$dir/arrived" });
    disable(1);
    is $site->get('/count', cookie => $c)->{status}, 200, 'the same with a POST at the old member';
    write_file("$dir/go", '');
    my $r = Site::read_answer($s);
    is $r->{status}, 502, 'it has been run there: not run twice, and its answer is not told';
    unlike $r->{body}, qr/stale/, 'nothing of it';
    disable(0);
}

# A connection that takes its time to fail: nothing listens behind the port, its queue is full.
$slow->kill9;
my $full = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $one, Listen => 1, ReuseAddr => 1, Proto => 'tcp') or die "listen: $!";
my @waiting;
for (1 .. 8) {
    my $s = IO::Socket::INET->new(Proto => 'tcp', Blocking => 0) or die "socket: $!";
    connect $s, pack_sockaddr_in($one, inet_aton('127.0.0.1'));
    push @waiting, $s;
}
# connections to it that are not made yet, as the kernel counts them
sub pending {
    open my $fh, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    my $to = sprintf '0100007F:%04X', $one;
    return scalar grep { (split)[2] eq $to && (split)[3] eq '02' } <$fh>;
}
sleep 0.2;
for my $how (['GET', 'CCC'], ['POST', 'DDD'], ['POST with a body', 'EEE', body => 'once']) {
    my ($name, $id, %o) = @$how;
    my $c = "JSESSIONID=$id.r1";
    my $before = pending();
    my $s = $site->send_request('/ok', cookie => $c, %o, ($name =~ /POST/ ? (method => 'POST') : ()));
    wait_for(sub { pending() > $before });
    disable(1);
    is $site->get('/count', cookie => $c)->{status}, 200, "moved while a $name waits for its member's connection";
    my $r = Site::read_answer($s);
    is_deeply [$r->{status}, Site::member_of($r)], [200, 'r2'], 'nobody has run it yet: it goes to the new one';
    disable(0);
}
$httpd->end;
$heir->kill9;
