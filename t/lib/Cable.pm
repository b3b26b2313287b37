package Cable;
# The cables between one httpd and its members: a relay in a process of its own, a port for each member. It can be told
#   pass N    let through
#   stall N   take everything and let nothing through: packets are lost, nobody says so. What was held goes on at "pass"
#   cut N     reset what is open, and refuse what comes: the switch is off
# A partition by network namespaces needs root; this needs nothing. It is only the cable: both ends are real.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();
use Socket qw(SOL_SOCKET SO_LINGER);

my $CHUNK = 65536;

# to => [ports of the members]; from => [ports to listen on]
sub start {
    my ($class, %a) = @_;
    my @listen = map { listen_on($_) } @{ $a{from} };
    pipe my $order_in, my $order or die "pipe: $!";
    pipe my $done, my $done_out or die "pipe: $!";
    defined(my $pid = fork) or die "fork: $!";
    if (!$pid) {
        POSIX::setpgid(0, 0);
        $SIG{$_} = 'DEFAULT' for qw(TERM INT HUP);
        $SIG{PIPE} = 'IGNORE';
        close $order;
        close $done;
        eval { relay(\@listen, $a{to}, $a{from}, $order_in, $done_out); 1 } or print STDERR "Cable: $@";
        POSIX::_exit(0);        # also when nobody holds the other end of $order any more
    }
    return bless { pid => $pid, order => $order, done => $done, owner => $$ }, $class;
}

# n from 0; back when it is done
sub tell {
    my ($self, $what, $n) = @_;
    syswrite $self->{order}, "$what $n\n" or die "the cable is gone\n";
    sysread $self->{done}, my $ok, 1 or die "the cable is gone\n";
}

sub end {
    my $self = shift;
    return unless $self->{owner} == $$ && $self->{pid};
    kill KILL => $self->{pid};
    waitpid delete $self->{pid}, 0;
}
sub DESTROY { local ($?, $!, $@); $_[0]->end }

sub listen_on {
    my $port = shift;
    return IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Proto => 'tcp', Listen => 128, ReuseAddr => 1,
        Blocking => 0) || die "cable on $port: $!";
}

# ---- in the process of its own ---------------------------------------------------------------------------------------

# A pair is { n, end => [near, far], held => ['', ''] (to be written to that end), eof => [0, 0] (that end has said all) }.
sub relay {
    my ($listen, $to, $from, $order, $done) = @_;
    my @mode = ('pass') x @$listen;
    my %pair;               # by file number, of both ends
    while (1) {
        my ($in, $out) = ('', '');
        vec($in, fileno $order, 1) = 1;
        for my $n (0 .. $#$listen) { vec($in, fileno $listen->[$n], 1) = 1 if $listen->[$n] }
        for my $fd (keys %pair) {
            my $p = $pair{$fd};
            next if $mode[ $p->{n} ] eq 'stall';
            my $side = fileno($p->{end}[1]) == $fd;
            vec($in, $fd, 1) = 1 if !$p->{eof}[$side] && length $p->{held}[!$side] < $CHUNK;
            vec($out, $fd, 1) = 1 if length $p->{held}[$side];
        }
        next if select($in, $out, undef, undef) < 0;
        for my $n (0 .. $#$listen) {
            next unless $listen->[$n] && vec $in, fileno $listen->[$n], 1;
            while (my $near = $listen->[$n]->accept) {
                my $far = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $to->[$n], Proto => 'tcp');
                if (!$far) { reset_end($near); next }
                $_->blocking(0) for $near, $far;
                my $p = { n => $n, end => [$near, $far], held => ['', ''], eof => [0, 0] };
                $pair{ fileno $_ } = $p for $near, $far;
            }
        }
        for my $fd (keys %pair) {
            my $p = $pair{$fd} or next;
            my $side = fileno($p->{end}[1]) == $fd ? 1 : 0;
            my $alive = 1;
            $alive = take($p, $side) if vec $in, $fd, 1;
            $alive &&= give($p, $side) if vec $out, $fd, 1;
            $alive &&= give($p, 1 - $side) if length $p->{held}[1 - $side];
            next if $alive && !($p->{eof}[0] && $p->{eof}[1] && $p->{held}[0] . $p->{held}[1] eq '');
            drop(\%pair, $p, !$alive);
        }
        if (vec $in, fileno $order, 1) {
            my $line = '';
            do { sysread $order, $line, 1, length $line or return } until $line =~ /\n/;
            my ($what, $n) = split ' ', $line;
            $mode[$n] = $what;
            if ($what eq 'cut') {
                undef $listen->[$n];
                drop(\%pair, $_, 1) for grep { $_->{n} == $n } map { $pair{$_} // () } keys %pair;
            }
            else { $listen->[$n] ||= listen_on($from->[$n]) }
            syswrite $done, '.';
        }
    }
}

# what one end says is held for the other; 0: the end was reset
sub take {
    my ($p, $side) = @_;
    my $n = sysread $p->{end}[$side], $p->{held}[1 - $side], $CHUNK, length $p->{held}[1 - $side];
    return $!{EAGAIN} || $!{EINTR} ? 1 : 0 unless defined $n;
    if ($n == 0) {
        $p->{eof}[$side] = 1;
        shutdown $p->{end}[1 - $side], 1 if $p->{held}[1 - $side] eq '';
    }
    return 1;
}

sub give {
    my ($p, $side) = @_;
    my $n = syswrite $p->{end}[$side], $p->{held}[$side];
    return $!{EAGAIN} || $!{EINTR} ? 1 : 0 unless defined $n;
    substr $p->{held}[$side], 0, $n, '';
    shutdown $p->{end}[$side], 1 if $p->{eof}[1 - $side] && $p->{held}[$side] eq '';
    return 1;
}

sub drop {
    my ($pair, $p, $reset) = @_;
    return if $p->{gone}++;
    delete $pair->{ fileno $_ } for @{ $p->{end} };
    $reset ? reset_end($_) : close $_ for @{ $p->{end} };
}

sub reset_end { setsockopt $_[0], SOL_SOCKET, SO_LINGER, pack('ii', 1, 0); close $_[0] }

1;
