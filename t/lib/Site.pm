package Site;
# What an operator has: an httpd in front, real Tomcats with the cart and the Valve behind, a store. And a
# client that sends requests one by one or all at once, each over a connection of its own.
use strict;
use warnings;
use IO::Socket::INET;
use JSON::PP ();
use Time::HiRes qw(sleep time);
use Apache::Test ();
use Daemon;
use Tomcat;

sub free_port { Tomcat::free_port() }

# members => 3, nodes => 2 (memcached; 0: lmdb), scheme => 'http' | 'ajp', conf => "more of the server",
# proxyset => '...', member => { 2 => 'status=+H' }, balancer => "more of <Proxy>", valve => 1, cluster => 'delta',
# tomcat => { more for Tomcat->start }, each => { 2 => { the same for one } }, memcached => [its flags], like => a site whose Tomcats are used again
sub new {
    my ($class, %a) = @_;
    my $v = Apache::Test::vars();
    my $self = bless { %a, v => $v }, $class;
    my $n = $a{members} // 3;
    my $scheme = $self->{scheme} //= 'http';
    $self->{name} = join '-', 'site', $$, free_port();
    my $dir = $self->{dir} = "$v->{t_logs}/$self->{name}";
    mkdir $dir or die "$dir: $!";
    $self->{secret} = "$dir/secret";
    open my $fh, '>', $self->{secret} or die "$dir/secret: $!";
    print $fh join('', map { sprintf '%02x', int rand 256 } 1 .. 32), "\n";
    close $fh;
    chmod 0600, $self->{secret};
    $self->start_node($_) for 1 .. ($a{nodes} // 1);
    if ($a{like}) {             # the Tomcats of another site, all alive; its httpd is ended
        $a{like}->{httpd}->end;
        $self->{$_} = $a{like}{$_} for qw(tomcats secret);
        $_->pid or $_->launch for @{ $self->{tomcats} };
        $_->wait_ready for @{ $self->{tomcats} };
        $self->{port} = free_port();
        $self->start_httpd;
        return $self;
    }
    my @tomcats = map { { route => "tomcat$_", secret_file => $self->{secret}, valve => $a{valve} // 1, context => '',
        %{ $a{tomcat} || {} }, %{ ($a{each} || {})->{$_} || {} } } } 1 .. $n;
    @tomcats = Tomcat->delta(@tomcats) if ($a{cluster} // '') eq 'delta';
    $self->{tomcats} = [Tomcat->start_all(@tomcats)];
    $self->{port} = free_port();
    $self->start_httpd;
    return $self;
}

sub start_node {
    my ($self, $n) = @_;
    my $port = $self->{node_port}{$n} ||= free_port();
    local $Daemon::on = $self->{node_host}{$n} || $Daemon::on;
    $self->{node}{$n} = Daemon->memcached($port, @{ $self->{memcached} || [] });
}
sub node { $_[0]{node}{ $_[1] } }
sub node_at { ($_[0]{node_host}{ $_[1] } || $Daemon::on)->{at} }

# A node without the module in between: the keys it holds, one value, and that value replaced.
sub ask_node {
    my ($self, $n, $request, $end) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => $self->node_at($n), PeerPort => $self->{node_port}{$n}, Proto => 'tcp') or die "node: $!";
    syswrite $s, $request;
    my $raw = '';
    until ($raw =~ $end) { sysread $s, $raw, 65536, length $raw or die "the node answers '$raw'" }
    return $raw;
}
sub node_keys {
    my ($self, $n) = @_;
    my $raw = $self->ask_node($n, "lru_crawler metadump all\r\n", qr/^END\r?\n\z/m);
    return sort map { s/%([0-9a-fA-F]{2})/chr hex $1/ger } $raw =~ /^key=(\S+)/mg;
}
# what it was asked, if it was started with -vv: "get KEY", "set KEY", "add KEY", in order
sub node_log {
    my ($self, $n) = @_;
    return Daemon::tail_of($self->{node}{$n}{log}, 0) =~ /^<\d+ ((?:get|gets|set|add|cas|delete) \S+)/mg;
}
sub node_value {
    my ($self, $n, $key, $new) = @_;
    if (defined $new) {
        $self->ask_node($n, "set $key 0 0 " . length($new) . "\r\n$new\r\n", qr/^STORED\r\n/);
        return $new;
    }
    my $raw = $self->ask_node($n, "get $key\r\n", qr/^END\r\n\z/m);
    return $raw =~ /\AVALUE \S+ \d+ (\d+)[^\n]*\n/ ? substr $raw, $+[0], $1 : undef;
}
sub tomcat { $_[0]{tomcats}[ $_[1] - 1 ] }

sub store_line {
    my $self = shift;
    return "SessionHAStore $self->{store}" if $self->{store};
    my @nodes = map { 'memcached://' . $self->node_at($_) . ":$self->{node_port}{$_}" } sort keys %{ $self->{node_port} };
    return 'SessionHAStore ' . (@nodes ? join(' ', @nodes) : "lmdb:$self->{dir}/store");
}

sub httpd_conf {
    my $self = shift;
    my $members = join '', map {
        my $t = $self->{tomcats}[ $_ - 1 ];
        my $port = $self->{scheme} eq 'ajp' ? $t->ajp_port : $t->http_port;
        "  BalancerMember $self->{scheme}://@{[ $t->at ]}:$port route=tomcat$_ " . ($self->{retry} // 'retry=1') . ' '
            . ($self->{member}{$_} // '') . "\n" } 1 .. @{ $self->{tomcats} };
    my $store = $self->store_line;
    my $on = $self->{off} ? 'Off' : 'On';
    return <<C;
LogFormat "%h \\"%r\\" %>s from=%{SESSION_HA_FROM}e to=%{SESSION_HA_TO}e outcome=%{SESSION_HA_OUTCOME}e" site
CustomLog $self->{dir}/access_log site
$store
SessionHASecret file:$self->{secret}
SessionHAStoreTimeout @{[ $self->{timeout} // ($ENV{VALGRIND} ? '5000ms' : '1000ms') ]}
@{[ $self->{conf} // '' ]}
<Proxy "balancer://tomcats">
$members  ProxySet stickysession=@{[ $self->{sticky} // 'JSESSIONID|jsessionid' ]} @{[ $self->{proxyset} // '' ]}
  SessionHA $on
@{[ $self->{balancer} // '' ]}
</Proxy>
<Location "/balancer-manager">
  SetHandler balancer-manager
</Location>
<Location "/session-ha-status">
  SetHandler session-ha-status
</Location>
ProxyPass "/balancer-manager" "!"
ProxyPass "/session-ha-status" "!"
ProxyPass "/" "balancer://tomcats/"
C
}

sub start_httpd {
    my $self = shift;
    $self->{httpd} = Daemon->httpd($self->{port}, $self->httpd_conf);
    return $self;
}
sub httpd { $_[0]{httpd} }
# a second one, before the same members and the same store; its port for get(..., port => ...)
sub second_httpd {
    my $self = shift;
    my $port = free_port();
    $self->{second} = Daemon->httpd($port, $self->httpd_conf);
    return $port;
}
sub restart_httpd { my $s = shift; $s->{httpd}->end; $s->start_httpd }
sub graceful {
    my $self = shift;
    my $log = "$self->{httpd}{dir}/error_log";
    my $count = sub { open my $fh, '<', $log or return 0; scalar grep { /resuming normal operations/ } <$fh> };
    my $before = $count->();
    kill USR1 => $self->{httpd}{pid};
    for (1 .. 200) { return 1 if $count->() > $before; sleep 0.05 }
    die "no graceful restart\n";
}
sub error_log { my $s = shift; open my $fh, '<', "$s->{httpd}{dir}/error_log" or return ''; local $/; return scalar <$fh> }

# ---- the client ----------------------------------------------------------------

# { status, head => {name => [values]}, body } or { status => 0 } when the connection was just closed
sub parse {
    my $raw = shift // '';
    my ($head, $body) = split /\r\n\r\n/, $raw, 2;
    return { status => 0, head => {}, body => '' } unless defined $head && $head =~ s{\AHTTP/1\.[01] (\d+)[^\r\n]*}{};
    my $r = { status => $1, head => {}, body => $body // '' };
    push @{ $r->{head}{ lc $1 } }, $2 while $head =~ /^([^:\r\n]+):[ \t]*(.*?)\r?$/mg;
    if (($r->{head}{'transfer-encoding'}[0] // '') =~ /chunked/i) {
        my $out = '';
        while ($r->{body} =~ s/\A([0-9a-fA-F]+)[^\r\n]*\r\n//) {
            my $len = hex $1 or last;
            $out .= substr $r->{body}, 0, $len, '';
            $r->{body} =~ s/\A\r\n//;
        }
        $r->{body} = $out;
    }
    return $r;
}

sub send_request {
    my ($self, $path, %o) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => $self->{at} // '127.0.0.1', PeerPort => $o{port} // $self->{port}, Proto => 'tcp')
        or die "connect: $!";
    my $method = $o{method} // (defined $o{body} ? 'POST' : 'GET');
    my $req = "$method $path HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n";
    $req .= "Cookie: $o{cookie}\r\n" if $o{cookie};
    $req .= "$_\r\n" for @{ $o{head} || [] };
    $req .= 'Content-Length: ' . length($o{body}) . "\r\n" if defined $o{body};
    $req .= "\r\n" . ($o{body} // '');
    my $off = 0;
    while ($off < length $req) { my $n = syswrite $s, $req, length($req) - $off, $off; last unless $n; $off += $n }
    return $s;
}

sub read_answer {
    my $s = shift;
    my ($raw, $end) = ('', time + 60);
    while (1) {
        my $in = '';
        vec($in, fileno $s, 1) = 1;
        my $left = $end - time;
        last if $left <= 0 || !select $in, undef, undef, $left;
        my $n = sysread $s, $raw, 65536, length $raw;
        last unless $n;
    }
    return parse($raw);
}

sub get { my ($self, $path, %o) = @_; return read_answer($self->send_request($path, %o)) }

# all sent before the first answer is read
sub parallel {
    my ($self, $n, $path, %o) = @_;
    my @s = map { $self->send_request(ref $path ? $path->($_) : $path, %o) } 1 .. $n;
    return map { read_answer($_) } @s;
}

# "JSESSIONID=ID.route" as the last Set-Cookie says, or the one given
sub cookie_of {
    my ($r, $before) = @_;
    my @set = grep { /^JSESSIONID=/ } @{ $r->{head}{'set-cookie'} || [] };
    return $before unless @set;
    my ($c) = $set[-1] =~ /^(JSESSIONID=[^;]*)/;
    return $c;
}
sub count_of { $_[0]{body} =~ /\bcount=(\d+)/ ? $1 : undef }
sub member_of { $_[0]{body} =~ /\bmember=(\S+)/ ? $1 : undef }

# a change by balancer-manager: $site->manage(tomcat => 1, w_status_D => 1)
sub manage {
    my ($self, $n, %change) = @_;
    my $page = $self->get('/balancer-manager')->{body};
    my ($nonce) = $page =~ /b=tomcats&amp;(?:w=[^"]*?&amp;)?nonce=([0-9a-f-]+)/ or die "no nonce in the page\n";
    my $t = $self->tomcat($n);
    my $port = $self->{scheme} eq 'ajp' ? $t->ajp_port : $t->http_port;
    my $body = join '&', "w=$self->{scheme}://@{[ $t->at ]}:$port", 'b=tomcats', "nonce=$nonce", map { "$_=$change{$_}" } keys %change;
    my $r = $self->get('/balancer-manager', body => $body, head => ["Referer: http://127.0.0.1:$self->{port}/balancer-manager",
        'Content-Type: application/x-www-form-urlencoded']);
    $r->{status} == 200 or die "balancer-manager: $r->{status}\n";
}

sub status {
    my $self = shift;
    my $r = $self->get('/session-ha-status?format=json');
    return JSON::PP::decode_json($r->{body});
}

1;
