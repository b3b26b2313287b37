package FaultSite;
# What the fault test is done to: one or two httpds before the same three Tomcats and three memcached, with the same
# secret, each on a host of its own (Hosts.pm), so that any httpd can be cut off from any member or node. The clients reach
# all httpds always. Here is what can be done to each of them, and when all is well again.
use strict;
use warnings;
use Apache::Test ();
use Digest::SHA qw(sha256_hex);
use Time::HiRes qw(sleep time);
use Time::Local ();
use Daemon;
use Hosts ();
use Site;
our @ISA = 'Site';

our ($members, $nodes) = (3, 3);

sub new {
    my ($class, %a) = @_;
    my $v = Apache::Test::vars();
    my $ledger = "$v->{t_logs}/ledger.$$";
    my $httpds = $a{httpds} // 1;
    my $net = Hosts->new((map { "httpd$_" } 1 .. $httpds), (map { "member$_" } 1 .. $members), map { "node$_" } 1 .. $nodes);
    # three seconds: a busy machine must not look like a partition of the store
    return $class->SUPER::new(
        members => $members, nodes => $nodes, httpds => $httpds, timeout => '3000ms', %a, net => $net,
        node_host => { map { $_ => $net->host("node$_") } 1 .. $nodes },
        each => { map { $_ => { host => $net->host("member$_") } } 1 .. $members },
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
    for my $h (1 .. $self->{httpds}) {
        my $conf = $self->httpd_conf;
        $conf =~ s/access_log site/access_log.$h site/;
        $self->{httpd_conf}[$h] = $conf;
        $self->{httpd_port}[$h] = Site::free_port();
        $self->httpd_start($h);
    }
    return $self;
}

# address:port of each
sub fronts { my $self = shift; return [map { $self->{net}->host("httpd$_")->{at} . ":$self->{httpd_port}[$_]" } 1 .. $self->{httpds}] }
sub httpd_start {
    my ($self, $h) = @_;
    local $Daemon::on = $self->{net}->host("httpd$h");
    $self->{each_httpd}[$h] = Daemon->httpd($self->{httpd_port}[$h], $self->{httpd_conf}[$h]);
    delete $self->{down}{$h};
}
sub httpd_term { my ($self, $h) = @_; $self->{down}{$h} = 1; $self->{each_httpd}[$h]->end }
sub httpd_kill { my ($self, $h) = @_; $self->{down}{$h} = 1; $self->{each_httpd}[$h]->kill9 }
sub httpds_up { my $self = shift; return grep { !$self->{down}{$_} } 1 .. $self->{httpds} }
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

# of one httpd
sub at_httpd {
    my ($self, $h, $do, @with) = @_;
    local $self->{at} = $self->{net}->host("httpd$h")->{at};
    local $self->{port} = $self->{httpd_port}[$h];
    return $self->$do(@with);
}

# ---- members, nodes, and the ways to them ------------------------------------------------------------------------------------

sub member_kill { my ($self, $n) = @_; $self->tomcat($n)->kill9 }
sub member_term { my ($self, $n) = @_; $self->tomcat($n)->terminate }
sub member_start { my ($self, $n) = @_; $self->tomcat($n)->launch->wait_ready }
# its machine is gone: nothing refuses any more
sub member_lose { my ($self, $n) = @_; $self->part($_, "member$n", 'silent') for 1 .. $self->{httpds}; $self->member_kill($n) }
sub member_find { my ($self, $n) = @_; $self->join($_, "member$n") for 1 .. $self->{httpds}; $self->member_start($n) }
sub member_hang { my ($self, $n) = @_; $self->tomcat($n)->stop_signal }
sub member_wake { my ($self, $n) = @_; $self->tomcat($n)->cont }

sub node_kill { my ($self, $n) = @_; $self->{node}{$n}->kill9 }
sub node_start { my ($self, $n) = @_; $self->start_node($n) }
sub node_hang { my ($self, $n) = @_; $self->{node}{$n}->stop }
sub node_wake { my ($self, $n) = @_; $self->{node}{$n}->cont }

# an httpd and a member or node do not reach each other; how: 'silent' or 'refused'
sub part { my ($self, $h, $whom, $how) = @_; $self->{net}->part("httpd$h", $whom, $how) }
sub join { my ($self, $h, $whom) = @_; $self->{net}->join("httpd$h", $whom) }

# Each httpd says that each node is up.
sub nodes_are_up {
    my $self = shift;
    for my $h (1 .. $self->{httpds}) {
        my $stores = eval { $self->at_httpd($h, 'status')->{stores} } or return 0;
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
            if (/$stamp .*: session (\w+) moved from (\S*) to (\S*) \((\S+)\): (\w+), epoch (\d+), .*?(\d+) us\b/) {
                my $at = _when($1, $2, $3, $4);
                push @told, { e => 'move', httpd => $h, at => $at, began => $at - $11 / 1e6, id => $5, from => $6, to => $7, cause => $8,
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
}

1;
