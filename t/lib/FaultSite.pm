package FaultSite;
# What the fault test is done to: one or two httpds before the same three Tomcats and three memcached, with the same
# secret. The last httpd reaches its members through cables (Cable.pm) that can be cut; the others directly, so that a
# dead member refuses, as it does in life. Here is what can be done to each of them, and when all is well again.
use strict;
use warnings;
use Apache::Test ();
use Digest::SHA qw(sha256_hex);
use Time::HiRes qw(sleep time);
use Time::Local ();
use Cable;
use Daemon;
use Site;
our @ISA = 'Site';

our ($members, $nodes) = (3, 3);

sub new {
    my ($class, %a) = @_;
    my $v = Apache::Test::vars();
    my $ledger = "$v->{t_logs}/ledger.$$";
    return $class->SUPER::new(
        members => $members, nodes => $nodes, httpds => 1, %a,
        ledger => $ledger, tomcat => { java_options => ["-Dledger=$ledger"] },
        conf => <<'C' . ($a{conf} // ''), balancer => "SessionHAMemberTimeout 1s\n" . ($a{balancer} // ''));
SessionHACopies 2
SessionHABackup sync
SessionHAJournal 2000
Protocols h2c http/1.1
KeepAliveTimeout 120
MaxKeepAliveRequests 0
# a hung member must not take every thread
<IfModule !mpm_prefork_module>
  ThreadsPerChild 25
  MaxRequestWorkers 100
</IfModule>
C
}

# ---- the httpds ----------------------------------------------------------------------------------------------------------

# Site->new comes here when the Tomcats are up
sub start_httpd {
    my $self = shift;
    my @to = map { $_->http_port } @{ $self->{tomcats} };
    my @from = map { Site::free_port() } @to;
    $self->{cable} = Cable->start(to => \@to, from => \@from);
    for my $h (1 .. $self->{httpds}) {
        my $conf = $self->httpd_conf;
        $conf =~ s/access_log site/access_log.$h site/;
        my $at = $self->{member_port}[$h] = $h == $self->{httpds} ? \@from : \@to;
        $conf =~ s/BalancerMember http:\/\/127\.0\.0\.1:$to[$_] /BalancerMember http:\/\/127.0.0.1:$at->[$_] / for 0 .. $#to;
        $self->{httpd_conf}[$h] = $conf;
        $self->{httpd_port}[$h] = Site::free_port();
        $self->httpd_start($h);
    }
    $self->{port} = $self->{httpd_port}[1];
    return $self;
}

sub ports { my $self = shift; return [@{ $self->{httpd_port} }[1 .. $self->{httpds}]] }
sub httpd_start {
    my ($self, $h) = @_;
    $self->{each_httpd}[$h] = Daemon->httpd($self->{httpd_port}[$h], $self->{httpd_conf}[$h]);
}
sub httpd_term { my ($self, $h) = @_; $self->{each_httpd}[$h]->end }
sub httpd_kill { my ($self, $h) = @_; $self->{each_httpd}[$h]->kill9 }
# the parent alone is told; back when the new generation serves
sub httpd_signal {
    my ($self, $h, $signal) = @_;
    my $daemon = $self->{each_httpd}[$h];
    my $log = "$daemon->{dir}/error_log";
    my $before = -s $log;
    kill $signal => $daemon->pid;
    for (1 .. 1200) {
        return if Daemon::tail_of($log, $before) =~ /resuming normal operations/;
        sleep 0.05;
    }
    die "httpd$h does not come back after SIG$signal\n";
}

# w_status_N and the like, at one httpd
sub manage {
    my ($self, $h, $n, %change) = @_;
    local $self->{port} = $self->{httpd_port}[$h];
    my $page = $self->get('/balancer-manager')->{body};
    my ($nonce) = $page =~ /b=tomcats&amp;(?:w=[^"]*?&amp;)?nonce=([0-9a-f-]+)/ or die "httpd$h: no nonce in the page\n";
    my $body = join '&', "w=http://127.0.0.1:$self->{member_port}[$h][$n - 1]", 'b=tomcats', "nonce=$nonce",
        map { "$_=$change{$_}" } keys %change;
    my $r = $self->get('/balancer-manager', body => $body, head => ["Referer: http://127.0.0.1:$self->{port}/balancer-manager",
        'Content-Type: application/x-www-form-urlencoded']);
    $r->{status} == 200 or die "balancer-manager: $r->{status}\n";
}

# ---- members, nodes, cables ------------------------------------------------------------------------------------------------

# A member that is gone refuses, also behind its cable: else every request to it would seem to have been begun.
sub member_gone { my ($self, $n) = @_; $self->tomcat($n)->wait_gone; $self->{cable}->tell(cut => $n - 1) }
sub member_kill { my ($self, $n) = @_; $self->tomcat($n)->kill9_at_once; $self->member_gone($n) }
sub member_term { my ($self, $n) = @_; $self->tomcat($n)->terminate; $self->member_gone($n) }
sub member_start { my ($self, $n) = @_; $self->tomcat($n)->launch; $self->{cable}->tell(pass => $n - 1); $self->tomcat($n)->wait_ready }
sub member_hang { my ($self, $n) = @_; $self->tomcat($n)->stop_signal }
sub member_wake { my ($self, $n) = @_; $self->tomcat($n)->cont }

sub node_kill { my ($self, $n) = @_; $self->{node}{$n}->kill9 }
sub node_start { my ($self, $n) = @_; $self->start_node($n) }
sub node_hang { my ($self, $n) = @_; $self->{node}{$n}->stop }
sub node_wake { my ($self, $n) = @_; $self->{node}{$n}->cont }

sub cable { my ($self, $what, $n) = @_; $self->{cable}->tell($what, $n - 1) }

# Each httpd says that each node is up.
sub nodes_are_up {
    my $self = shift;
    for my $h (1 .. $self->{httpds}) {
        local $self->{port} = $self->{httpd_port}[$h];
        my $stores = eval { $self->status->{stores} } or return 0;
        return 0 if grep { $_->{state} eq 'down' } @$stores;
    }
    return 1;
}

# ---- what is left of it ----------------------------------------------------------------------------------------------------

my %month = do { my $n = 0; map { $_ => $n++ } qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec) };

sub _when {
    my ($mon, $day, $time, $year) = @_;
    my ($h, $m, $s) = split /:/, $time;
    return Time::Local::timelocal(int $s, $m, $h, $day, $month{$mon}, $year) + ($s - int $s);
}

# { e => 'move' | 'condemned', ... } from the httpds' logs; the session by the first 12 digits of its digest
sub told {
    my $self = shift;
    my @told;
    my $stamp = qr/^\[\w+ (\w+) +(\d+) ([\d:.]+) (\d+)\]/;
    for my $h (1 .. $self->{httpds}) {
        open my $fh, '<', "$self->{each_httpd}[$h]{dir}/error_log" or die "httpd$h has no log\n";
        while (<$fh>) {
            if (/$stamp .*: session (\w+) moved from (\S*) to (\S*) \((\S+)\): (\w+), epoch (\d+)/) {
                push @told, { e => 'move', httpd => $h, at => _when($1, $2, $3, $4), id => $5, from => $6, to => $7, cause => $8,
                    outcome => $9, epoch => $10 };
            }
            elsif (/$stamp .*member (\S+) did not answer for (\d+) ms, nor a probe/) {
                my $until = _when($1, $2, $3, $4);
                push @told, { e => 'condemned', httpd => $h, what => $5, at => $until - $6 / 1000, until => $until };
            }
        }
    }
    return @told;
}

# { e => 'ran', ... }: what the application wrote down
sub ran {
    my $self = shift;
    open my $fh, '<', $self->{ledger} or return ();
    return map { my ($rid, $value, $member, $ms) = split; { e => 'ran', rid => $rid, value => $value + 0, member => $member, at => $ms / 1000 } } <$fh>;
}

sub end {
    my $self = shift;
    $_->end for grep { $_ } @{ $self->{each_httpd} };
    $_->kill9 for @{ $self->{tomcats} }, values %{ $self->{node} };
    $self->{cable}->end;
}

1;
