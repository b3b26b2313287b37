package Hosts;
# Hosts of one network: each is a network namespace with an address of its own, and the namespace that the test runs in is
# the router between them. The router can be told that two of them do not reach each other.
#
#   use Hosts;                                      # before all else: the test goes on in namespaces of its own
#   my $net = Hosts->new(qw(httpd1 tomcat1));
#   $net->host('tomcat1')                           # { at => its address, in => [command that runs another one there] }
#   $net->part('httpd1', 'tomcat1', 'silent');      # packets vanish: a cable that was pulled, a dead switch
#   $net->part('httpd1', 'tomcat1', 'refused');     # the router says that the host is unreachable
#   $net->join('httpd1', 'tomcat1');
#
# No root is needed: in a user namespace of its own an ordinary user may do this, and servers there have no right that
# they would not have outside. All of it is gone with the last process in it.
# nsenter, not `ip -n`: that mounts /sys, which a container may refuse.
use strict;
use warnings;

my @enter = qw(unshare --user --map-current-user --keep-caps --mount --net);
my %rule = (silent => 'blackhole', refused => 'unreachable');

sub import {
    return if ($ENV{HA_HOSTS} // '') eq $$;
    my $said = qx(@enter true 2>&1);
    $? == 0 or die "a network of namespaces is needed here, and this machine refuses it: '@enter' says: ", $said || $!, "\n",
        'user namespaces must be allowed for ordinary users (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone; in a ',
        "container its seccomp profile), and unshare (util-linux) and ip (iproute2) installed\n";
    $ENV{HA_HOSTS} = $$;
    exec @enter, $^X, (map { "-I$_" } @INC), $0, @ARGV or die "unshare: $!\n";
}

sub new {
    my ($class, @names) = @_;
    $ENV{PATH} .= ':/usr/sbin:/sbin';
    my $self = bless { rules => {} }, $class;
    run(qw(mount -t tmpfs none /run));      # where ip keeps the names
    setting('ip_forward', 1);
    setting('icmp_ratelimit', 0);           # each connection is told that there is no way
    run(qw(ip link set lo up));
    my $n = 0;
    for my $name (@names) {
        my $net = '10.0.' . ++$n;
        $self->{host}{$name} = { at => "$net.2",
            in => ['nsenter', "--net=/run/netns/$name", qw(setpriv --inh-caps=-all --ambient-caps=-all)] };
        run(qw(ip netns add), $name);
        run(qw(ip link add), $name, qw(type veth peer name eth0 netns), $name);
        run(qw(ip addr add), "$net.1/24", 'dev', $name);
        run(qw(ip link set), $name, 'up');
        run('nsenter', "--net=/run/netns/$name", 'ip', @$_) for [qw(link set lo up)], ['addr', 'add', "$net.2/24", 'dev', 'eth0'], [qw(link set eth0 up)],
            [qw(route add default via), "$net.1"];
    }
    return $self;
}

sub host { my ($self, $name) = @_; return $self->{host}{$name} || die "no host $name\n" }

sub part {
    my ($self, $one, $other, $how) = @_;
    my ($here, $there) = map { $self->host($_)->{at} } $one, $other;
    $self->join($one, $other);
    my @rules = map { [@$_, $rule{$how} || die "part: $how\n"] } ['from', $here, 'to', $there], ['from', $there, 'to', $here];
    run(qw(ip rule add), @$_) for @rules;
    $self->{rules}{"$one $other"} = \@rules;
}

sub join {
    my ($self, $one, $other) = @_;
    run(qw(ip rule del), @$_) for @{ delete $self->{rules}{"$one $other"} || [] };
}

sub run { system(@_) == 0 or die "@_: failed; see doc/faults.md on what the network of the test needs\n" }

sub setting {
    my ($name, $value) = @_;
    my $fh;
    open $fh, '>', "/proc/sys/net/ipv4/$name" and print $fh $value and close $fh or die "/proc/sys/net/ipv4/$name: $!\n";
}

1;
