#!/usr/bin/perl
# cost.pl - what a request costs: instructions (callgrind, exact), system calls, and where they go.
#
# Instructions: one httpd process under callgrind, one client connection. callgrind writes its counters when httpd enters
# ap_send_http_trace(), which it does for each request that is not proxied: "GET /mark". Windows with so many requests
# between two marks take turns with empty ones; the lowest of each kind counts, and their difference is the requests'.
# What is more in a window is work by the clock (watchdogs, probes), blown up by the slowness of callgrind: short windows
# that meet none are many.
#
# System calls: perf counts those of the same httpd without callgrind; the lowest of N and of 3 N requests.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Bench;
use List::Util qw(min sum0);
use Time::HiRes qw(sleep);

my $n = $ENV{REQUESTS} || 120;
my $windows = $ENV{WINDOWS} || 12;
`valgrind --version` =~ /valgrind/ or die "valgrind is missing (Debian: apt-get install valgrind)\n";

my $stores = 0;

# The module in a server: a store of its own for each start, because httpds that meet in one look for each other.
sub module {
    my ($scheme, @lines) = @_;
    return load => 1, conf => sub {
        my $url = $scheme eq 'lmdb' ? "lmdb:$Bench::dir/store" . ++$stores : Bench::memcached() =~ s/^memcached/$scheme/r;
        return join "\n", "SessionHAStore $url", 'SessionHAStoreTimeout 10s', 'SessionHASecret file:' . secret(), @lines;
    };
}
sub on { return module('memcached', 'SessionHA On', @_) }

my $secret;
sub secret {
    return $secret if $secret;
    $secret = "$Bench::dir/secret";
    open my $fh, '>', $secret or die "$secret: $!";
    print $fh 'bench' x 8, "\n";
    close $fh;
    chmod 0600, $secret;
    return $secret;
}

# self cost of each function in one dump: { "object function" => instructions }
sub read_dump {
    my ($file) = @_;
    my (%fn, %ob, %cost, $fn, $ob, $skip);
    local $_;
    open my $fh, '<', $file or die "$file: $!";
    while (<$fh>) {
        if (/^[+\-*\d]/) {
            if ($skip) { $skip = 0; next }
            $cost{"$ob $fn"} += (split)[1] || 0;
        }
        elsif (/^(c?)(fn|ob)=\((\d+)\)(?: (.*))?/) {
            my $names = $2 eq 'fn' ? \%fn : \%ob;
            $names->{$3} = $4 if defined $4;
            next if $1;
            my $name = $names->{$3};
            $2 eq 'fn' ? ($fn = $name =~ s/'\d+\z//r) : ($ob = $name =~ s/.*\///r);
        }
        elsif (/^calls=/) { $skip = 1 }
    }
    return \%cost;
}

sub total { return sum0 values %{ $_[0] } }

# A client with some sessions: asks so often.
sub client {
    my ($h, $members) = @_;
    my $s = Bench::connection($h->{port});
    my @cookies;
    for (1 .. 2 * $members) {
        my $r = Bench::get($s, '/app/page');
        $r->[0] == 200 && $r->[1] =~ /^Set-Cookie: ([^;]+)/mi or die "no session: $r->[1]";
        push @cookies, $1;
    }
    my $k = 0;
    my $ask = sub {
        for (1 .. $_[0]) {
            Bench::get($s, '/app/page', $cookies[ $k++ % @cookies ])->[0] == 200 or die "not 200\n";
        }
    };
    $ask->(2 * @cookies);
    return ($ask, sub { sleep 0.05; Bench::get($s, '/mark') });     # what follows an answer has had its time
}

# { instructions, functions } of one request
sub measure {
    my (%a) = @_;
    my $out = "$Bench::dir/callgrind.out";
    unlink glob "$out*";
    my $h = Bench::httpd(%a, solo => 1,
        under => ['valgrind', '-q', '--tool=callgrind', "--callgrind-out-file=$out", '--dump-before=ap_send_http_trace']);
    my ($ask, $mark) = client($h, scalar @{ $a{members} });
    $mark->();
    for (1 .. $windows) {
        $ask->($n);
        $mark->();
        $mark->();
    }
    Bench::stop($h->{pid});
    my %least;
    for my $w (1 .. 2 * $windows) {
        my ($kind, $d) = ($w % 2 ? 'full' : 'empty', read_dump("$out." . ($w + 1)));
        $least{$kind} = $d if !$least{$kind} || total($d) < total($least{$kind});
    }
    my ($full, $empty) = @least{qw(full empty)};
    return { instructions => (total($full) - total($empty)) / $n,
        functions => { map { $_ => ($full->{$_} - ($empty->{$_} // 0)) / $n } keys %$full } };
}

my $perf = `perf --version 2>&1` =~ /^perf version/;

# of one request, or undef: no perf, or it may not be used
sub system_calls {
    my (%a) = @_;
    return undef if !$perf;
    my $h = Bench::httpd(%a, solo => 1);
    my ($ask) = client($h, scalar @{ $a{members} });
    my %calls;
    for my $k (map { $n, 3 * $n } 1 .. 4) {
        my $out = "$Bench::dir/perf";
        unlink $out;
        my $pid = open my $until, '|-', "exec perf stat -x, -o $out -e raw_syscalls:sys_enter -p $h->{pid} -- cat 2>/dev/null" or die "perf: $!";
        sleep 0.3;
        $ask->($k);
        close $until;
        open my $fh, '<', $out or last;
        $calls{$k} = min($calls{$k} // 9e9, $1) if join('', <$fh>) =~ /^(\d+),.*raw_syscalls/m;
    }
    Bench::stop($h->{pid});
    return keys %calls == 2 ? ($calls{3 * $n} - $calls{$n}) / (2 * $n) : undef;
}

sub profile {
    my ($title, $ours, $base, $lines) = @_;
    my %more = map { $_ => ($ours->{functions}{$_} // 0) - ($base->{functions}{$_} // 0) }
        keys %{ { %{ $ours->{functions} }, %{ $base->{functions} } } };
    my @names = (sort { abs $more{$b} <=> abs $more{$a} } keys %more)[0 .. $lines - 1];
    Bench::table($title, [qw(function object more)],
        map { my ($ob, $fn) = split / /, $_, 2; [$fn =~ s/\A.*\/|\A.*?://r, $ob, sprintf '%+.0f', $more{$_}] } @names);
}

my @cases = (
    # what, base, measure's arguments, bytes, how
    ['stock', '', {}],
    ['loaded, off', 'stock', { load => 1 }],
    ['on, native', 'stock', { on('SessionHABackup native', 'SessionHANative none') }],
    ['on, nothing to save', 'stock', { on() }],
    ['the same, said in <Proxy>', 'stock', { module('memcached'), in_proxy => '  SessionHA On' }],
    map { my $b = $_; (
        ["stock, a field of $b bytes", '', {}, $b, 'always'],
        ["on, backup of $b bytes", "stock, a field of $b bytes", { on() }, $b, 'asked'],
        ["  the same, async", "stock, a field of $b bytes", { on('SessionHABackup async') }, $b, 'asked'],
        ["  the same, libmemcached:", "stock, a field of $b bytes", { module('libmemcached', 'SessionHA On') }, $b, 'asked'],
        ["  the same, lmdb:", "stock, a field of $b bytes", { module('lmdb', 'SessionHA On') }, $b, 'asked'],
    ) } 512, 4096);
my @only = grep { length } split /,/, $ENV{ONLY} // '';
my (%got, @rows);
for (@cases) {
    my ($what, $base, $args, $bytes, $when) = @$_;
    next if @only && !grep { index($what, $_) >= 0 } @only;
    my @members = Bench::members(3, $bytes, $when);
    my $m = measure(%$args, members => \@members);
    my $calls = system_calls(%$args, members => \@members);
    $got{$what} = $m;
    my $b = $got{$base} || $m;
    push @rows, [$what, sprintf('%.0f', $m->{instructions}), $base ? sprintf('%+.0f', $m->{instructions} - $b->{instructions}) : '',
        $base ? sprintf('%.4f', $m->{instructions} / $b->{instructions}) : '', defined $calls ? sprintf('%.1f', $calls) : '-'];
    print STDERR "# @{ $rows[-1] }\n";
}
Bench::table("A request of a known session, 3 members ($n requests a window)",
    ['', 'instructions', 'more', 'ratio', 'system calls'], @rows);
profile("Where 'on, nothing to save' differs from stock, instructions a request", @got{'on, nothing to save', 'stock'}, 25)
    if $got{'on, nothing to save'} && $got{stock};
for my $b (512, 4096) {
    profile("Where a stored backup of $b bytes differs from a field of that size", @got{"on, backup of $b bytes", "stock, a field of $b bytes"}, 30)
        if $got{"on, backup of $b bytes"} && $got{"stock, a field of $b bytes"};
}
if (!@only || $ENV{GROWTH}) {
    my %by;
    for my $members (2, 20, 200) {
        for my $case ([stock => {}], [on => { on() }]) {
            $by{$case->[0]}{$members} = measure(%{ $case->[1] }, members => [Bench::members($members)])->{instructions};
        }
    }
    Bench::table('With more members', ['members', 'stock', 'on', 'ratio'],
        map { [$_, map({ sprintf '%.0f', $_ } $by{stock}{$_}, $by{on}{$_}), sprintf '%.4f', $by{on}{$_} / $by{stock}{$_}] } 2, 20, 200);
}
