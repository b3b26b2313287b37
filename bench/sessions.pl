#!/usr/bin/perl
# sessions.pl - does httpd's memory grow with the number of sessions?
#
# Visitors without a cookie, to a member that answers each with a new session and its state, beside a stock httpd that is
# asked the same. Now and then both are left alone, and the memory of their processes is summed up: PSS, which counts
# a page that several of them share once.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Bench;
use IO::Socket::INET;
use List::Util qw(sum0);
use Time::HiRes qw(sleep time);

my $sessions = $ENV{SESSIONS} || 1_000_000;
my $bytes = $ENV{BYTES} || 4096;
my $connections = $ENV{CONNECTIONS} || 64;
my $megabytes = 12_000;

sub meminfo { open my $fh, '<', '/proc/meminfo' or die "meminfo: $!"; return join('', <$fh>) =~ /^MemAvailable:\s+(\d+) kB/m ? $1 / 1024 : 0 }
# base64, the envelope and memcached's slabs
my $needed = $sessions * ($bytes * 4 / 3 + 500) * 1.25 / 2**20;
die sprintf "%d sessions of %d bytes are some %.0f MB in memcached, which may have %d: SESSIONS=N or BYTES=N\n",
    $sessions, $bytes, $needed, $megabytes if $needed > $megabytes;
die sprintf "%.0f MB are wanted, %.0f are free: SESSIONS=N makes it less\n", $needed + 1000, meminfo() if meminfo() < $needed + 1000;

my $store = Bench::memcached('-m', $megabytes);
my $secret = "$Bench::dir/secret";
open my $fh, '>', $secret or die "$secret: $!";
print $fh 'bench' x 8, "\n";
close $fh;
chmod 0600, $secret;
my @httpds = map { { %$_, members => [Bench::members(3, $bytes, 'asked')], pss => [], took => 0 } }
    { name => 'stock httpd' },
    { name => 'mod_session_ha', load => 1,
      conf => "SessionHAStore $store\nSessionHAStoreTimeout 10s\nSessionHASecret file:$secret\nSessionHA On" };
$_->{httpd} = Bench::httpd(members => $_->{members}, load => $_->{load}, conf => $_->{conf}) for @httpds;

# [all, what is shared memory], MB
sub memory {
    my ($leader) = @_;
    my @of = (0, 0);
    for my $stat (glob '/proc/[0-9]*/stat') {
        open my $fh, '<', $stat or next;
        my $line = <$fh> // next;
        next if $line !~ /\A(\d+) \(.*\) \S \d+ (\d+) / || $2 != $leader;
        open $fh, '<', "/proc/$1/smaps_rollup" or next;
        my $all = join '', <$fh>;
        $of[0] += $1 / 1024 if $all =~ /^Pss:\s+(\d+) kB/m;
        $of[1] += $1 / 1024 if $all =~ /^Pss_Shmem:\s+(\d+) kB/m;
    }
    return \@of;
}

sub stats {
    my ($port) = $store =~ /(\d+)\z/;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die "memcached: $!";
    syswrite $s, "stats\r\n";
    my $raw = '';
    until ($raw =~ /^END\r?\n\z/m) { sysread $s, $raw, 65536, length $raw or die "memcached: $!" }
    return { $raw =~ /^STAT (\S+) (\S+)/mg };
}

my ($done, @rows) = (0);
my @stops = ((grep { $_ < $sessions } map { 10**$_ } 3 .. 9), $sessions);
for my $stop (@stops) {
    for my $h (@httpds) {
        my $said = `'$ENV{HA_BUILD}/bench/load' $h->{httpd}{port} $connections @{[ $stop - $done ]}`;
        $? == 0 && $said =~ /^\d+ (\S+)/ or die "$h->{name}: the load ended with $?\n";
        $h->{took} += $1;
    }
    $done = $stop;
    sleep 3;
    my $stats = stats();
    $stats->{evictions} == 0 or die "memcached has thrown sessions away: it is too small\n";
    push @rows, [$done, (map { my $m = memory($_->{httpd}{pid}); sprintf('%.1f', $m->[0]), sprintf('%.1f', $m->[1]) } @httpds),
        $stats->{curr_items}, sprintf '%.2f', $stats->{bytes} / 2**30];
    print STDERR "# @{ $rows[-1] }\n";
}
Bench::table("httpd's memory after so many sessions of $bytes bytes: PSS of all processes, MB; of that shared memory",
    ['sessions', 'stock', 'shared', 'session_ha', 'shared', 'in memcached', 'GB'], @rows);
printf "\n  %s\n", join ', ', map { sprintf '%s: %.0f requests/s', $_->{name}, $done / $_->{took} } @httpds;
