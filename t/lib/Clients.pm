package Clients;
# Clients that count up in their sessions, all in one process of their own; each writes down what it asked and what it
# was answered. What a client does is drawn from a stream of its own: GET or POST, which httpd, how long the member is to
# take, a fresh connection, a kept one or h2, the newest cookie or the one it got first.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use Errno ();
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Time::HiRes qw(sleep time);
use Draw;
use Site;

my $patience = 60;      # seconds until a request counts as never answered

# fronts => [address:port of the httpds], seed, sessions, file => where the requests are written down. Back with an object whose stop()
# lets each client have its answer, and ends.
sub start {
    my ($class, %a) = @_;
    defined(my $pid = fork) or die "fork: $!";
    if (!$pid) {
        POSIX::setpgid(0, 0);
        my $parent = getppid();
        my $self = bless { %a, json => JSON::PP->new->canonical, parent => $parent }, $class;
        my $ok = eval { $self->run; 1 };
        print STDERR "Clients: $@" unless $ok;
        POSIX::_exit($ok ? 0 : 1);
    }
    return bless { pid => $pid, owner => $$ }, $class;
}

sub stop {
    my $self = shift;
    kill TERM => $self->{pid};
    waitpid delete $self->{pid}, 0;
    return $? == 0;
}

sub DESTROY {
    my $self = shift;
    local ($?, $!, $@);
    return unless $self->{pid} && ($self->{owner} // 0) == $$;
    kill KILL => -$self->{pid};
    waitpid $self->{pid}, 0;
}

# ---- the clients ---------------------------------------------------------------------------------------------------------

# A session is { name, cookies => [first, ..., newest] } and is shared by one to six clients; after a number of
# requests that is drawn it is left and a new one begun.
sub run {
    my $self = shift;
    open $self->{out}, '>>', $self->{file} or die "$self->{file}: $!";
    my $stop = 0;
    local $SIG{TERM} = sub { $stop = 1 };
    local $SIG{PIPE} = 'IGNORE';
    my @clients;
    for my $n (1 .. $self->{sessions}) {
        my $seat = { n => $n, life => 0, started => 0, draw => Draw->new($self->{seed}, "session $n") };
        push @clients, map { { name => "$n.$_", seat => $seat, draw => Draw->new($self->{seed}, "client $n.$_"), due => time + $seat->{draw}->unit,
            count => 0 } } 1 .. $seat->{draw}->weighted(1 => 5, 2 => 2, 3 => 2, 6 => 1);
    }
    while (!$stop || grep { $_->{fh} } @clients) {
        last if getppid() != $self->{parent};       # nobody is left to read it
        my $now = time;
        $self->begin($_) for grep { !$_->{fh} && $_->{due} <= $now } $stop ? () : @clients;
        my ($in, $out) = ('', '');
        for (grep { $_->{fh} } @clients) {
            vec($in, fileno $_->{fh}, 1) = 1;
            vec($out, fileno $_->{fh}, 1) = 1 if length $_->{to_send};
        }
        my $n = select $in, $out, undef, 0.01;
        for my $c (grep { $_->{fh} } @clients) {
            my $fd = fileno $c->{fh};
            $self->write_on($c) if $n > 0 && vec $out, $fd, 1;
            $self->read_on($c) if $n > 0 && $c->{fh} && vec $in, $fd, 1;
            $self->over($c, 'no answer') if $c->{fh} && $now - $c->{r}{sent} > $patience;
        }
    }
    close $self->{out} or die "$self->{file}: $!";
}

sub session_of {
    my $seat = shift;
    if (!$seat->{session} || ($seat->{session}{cookies} && $seat->{life} <= 0)) {
        $seat->{life} = 20 + $seat->{draw}->below(150);
        $seat->{session} = { name => "s$seat->{n}." . ++$seat->{started} };
    }
    $seat->{life}--;
    return $seat->{session};
}

sub begin {
    my ($self, $c) = @_;
    my $d = $c->{draw};
    my $seat = $c->{seat};
    # the others of a session wait until it is there
    if ($seat->{session} && !$seat->{session}{cookies} && $seat->{beginning}) { $c->{due} = time + 0.05; return }
    my $s = session_of($seat);
    my $kept = $c->{kept};
    my $r = $c->{r} = {
        e => 'request', rid => "$c->{name}-" . ++$c->{count}, s => $s->{name},
        httpd => 1 + $d->below(scalar @{ $self->{fronts} }),
        method => $d->chance(0.35) ? 'POST' : 'GET',
        how => $d->weighted(close => 50, keep => 47, h2 => 3),
    };
    my $ms = $d->weighted(0 => 70, 30 => 15, 200 => 12, 1500 => 3);
    my $cookie = $s->{cookies} ? $s->{cookies}[$d->chance(0.1) ? 0 : -1] : undef;
    my $body = $r->{method} eq 'POST' ? 'x' x $d->weighted(10 => 8, 3000 => 2, 30_000 => 1) : undef;
    my $pause = $d->between(0.02, 0.2);
    if (!$s->{cookies}) {
        $r->{method} = 'GET';       # a session that nobody was told of is nobody's loss
        undef $body;
        $seat->{beginning} = $c;
    }
    ($r->{route}) = ($cookie // '') =~ /\.(.*)/;
    my $path = "/tick?rid=$r->{rid}" . ($ms ? "&ms=$ms" : '');
    my $front = $self->{fronts}[ $r->{httpd} - 1 ];
    @$c{qw(session got to_send pause)} = ($s, '', '', $pause);
    $r->{sent} = time;
    if ($r->{how} eq 'h2') { $self->ask_h2($c, "http://$front$path", $cookie, $body); return }
    # closed while it was idle: any client looks before it sends
    if ($kept && ($r->{how} ne 'keep' || $kept->{httpd} != $r->{httpd} || defined sysread $kept->{fh}, my $nothing, 1)) {
        close $kept->{fh};
        undef $kept;
    }
    $r->{used} = 1 if $kept;        # the connection, before
    $c->{fh} = $kept ? $kept->{fh} : IO::Socket::INET->new(PeerAddr => $front, Proto => 'tcp');
    undef $c->{kept};
    if (!$c->{fh}) { $self->over($c, 'refused'); return }
    $c->{fh}->blocking(0);
    $c->{to_send} = "$r->{method} $path HTTP/1.1\r\nHost: $front\r\n"
        . ($r->{how} eq 'close' ? "Connection: close\r\n" : '')
        . (defined $cookie ? "Cookie: $cookie\r\n" : '')
        . (defined $body ? 'Content-Length: ' . length($body) . "\r\n" : '') . "\r\n" . ($body // '');
    $self->write_on($c);
}

sub write_on {
    my ($self, $c) = @_;
    my $n = syswrite $c->{fh}, $c->{to_send};
    if (defined $n) { substr $c->{to_send}, 0, $n, '' }
    elsif (!$!{EAGAIN}) { $c->{to_send} = '' }      # what can still be read is read
}

sub read_on {
    my ($self, $c) = @_;
    my $n = sysread $c->{fh}, $c->{got}, 65536, length $c->{got};
    return if !defined $n && $!{EAGAIN};
    if (!$n) {
        my $why = defined $n ? 'closed' : 'reset';
        if ($c->{r}{how} eq 'h2') { $self->answer_h2($c); return }
        $self->over($c, $c->{got} eq '' ? $why . ($c->{r}{used} ? ' (a used connection)' : '') : "$why in the answer") unless $self->whole($c, 1);
        return;
    }
    $self->whole($c, 0) if $c->{r}{how} ne 'h2';
}

# Is it all there? Then it is over.
sub whole {
    my ($self, $c, $ended) = @_;
    my $end = index $c->{got}, "\r\n\r\n";
    return 0 if $end < 0;
    my $head = substr $c->{got}, 0, $end;
    my $have = length($c->{got}) - $end - 4;
    my $complete = $head =~ /^Content-Length: *(\d+)/mi ? $have >= $1
        : $head =~ /^Transfer-Encoding: *chunked/mi ? $c->{got} =~ /\r\n0\r\n\r\n\z/ : $ended;
    return 0 unless $complete;
    my $parsed = Site::parse($c->{got});
    my $keep = $c->{r}{how} eq 'keep' && !$ended && $head !~ /^Connection: *close/mi;
    $self->over($c, undef, $parsed, $keep);
    return 1;
}

# h2 by curl, a process for each request
sub ask_h2 {
    my ($self, $c, $url, $cookie, $body) = @_;
    my @data = defined $body ? ('--data-binary', $body, '-H', 'Content-Type: text/plain') : ();
    my $pid = open my $fh, '-|', qw(setpriv --pdeathsig KILL curl -sS -i --http2-prior-knowledge --max-time), $patience,
        defined $cookie ? ('-H', "Cookie: $cookie") : (), @data, $url;
    $pid or die "curl: $!\n";
    $fh->blocking(0);
    $c->{fh} = $fh;
}

sub answer_h2 {
    my ($self, $c) = @_;
    close $c->{fh};
    my $why = $? ? 'curl ' . ($? >> 8) : undef;
    $c->{fh} = undef;
    $c->{got} =~ s{\AHTTP/2 }{HTTP/1.1 } unless defined $why;
    $self->over($c, $why, defined $why ? undef : Site::parse($c->{got}));
}

# Written down, and when the next one is due.
sub over {
    my ($self, $c, $why, $answer, $keep) = @_;
    my ($r, $s) = @$c{qw(r session)};
    $r->{done} = time;
    if ($keep) { $c->{kept} = { fh => $c->{fh}, httpd => $r->{httpd} } }
    elsif ($c->{fh}) { close $c->{fh} }
    undef $c->{fh};
    $r->{status} = $answer ? $answer->{status} : 0;
    $r->{why} = $why if defined $why;
    if ($r->{status} == 200) {
        my $id;
        ($r->{value}, $r->{member}, $id) = $answer->{body} =~ /\bcount=(\d+) member=(\S+) id=([^.\s]+)/;
        if (defined $id) {
            $_ += 0 for $r->{value};
            $r->{id} = substr sha256_hex("balancer://tomcats\0$id"), 0, 12;
            my $cookie = Site::cookie_of($answer);
            $s->{cookies} ||= defined $cookie ? [$cookie] : undef;
            my ($mine) = $s->{cookies}[0] =~ /=([^.]+)/;
            push @{ $s->{cookies} }, $cookie if defined $cookie && $mine eq $id && $cookie ne $s->{cookies}[-1];
        }
        else { $r->{why} = 'an answer that is none' }
    }
    $c->{seat}{beginning} = undef if ($c->{seat}{beginning} // 0) == $c;
    print { $self->{out} } $self->{json}->encode($r), "\n";
    $self->{out}->flush;
    $c->{due} = time + $c->{pause};
}

1;
