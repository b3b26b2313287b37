# A rolling restart of three Tomcats under load, with bin/rolling-restart: nothing lost, nothing failed.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use POSIX ();
use Time::HiRes qw(sleep time);
use Site;

plan tests => 9;

my $v = Apache::Test::vars();
my $site = Site->new(members => 3, nodes => 2, balancer => 'SessionHADrain move');
my $dir = $site->{dir};

# sessions that count up all the time, in a process of their own; what went wrong is in a file at the end
defined(my $load = fork) or die $!;
if (!$load) {
    my @s = map { my $r = $site->get('/count'); { cookie => Site::cookie_of($r), n => 1 } } 1 .. 20;
    my ($requests, $failed, $wrong) = (0, 0, 0);
    until (-e "$dir/enough") {
        for my $s (@s) {
            my $r = $site->get('/count', cookie => $s->{cookie}, $requests++ % 3 ? () : (body => 'x=1'));
            $failed++ if $r->{status} != 200;
            $wrong++ if (Site::count_of($r) // -1) != ++$s->{n};
            $s->{n} = Site::count_of($r) // $s->{n};
            $s->{cookie} = Site::cookie_of($r, $s->{cookie});
        }
    }
    open my $fh, '>', "$dir/result"; print $fh "$requests $failed $wrong"; close $fh;
    POSIX::_exit(0);
}
sleep 1;

# the command asks us to restart a Tomcat, as the process that it is a child of
my $command = "touch $dir/restart.%r; while [ -e $dir/restart.%r ]; do sleep 0.1; done";
my ($script) = grep { -x } map { "$_/bin/rolling-restart" } $v->{srcdir} // (), "$v->{builddir}/../src", '..';
my $pid = open my $out, '-|', $^X, $script, '--manager', "http://127.0.0.1:$site->{port}/balancer-manager",
    '--balancer', 'tomcats', '--restart', $command, '--wait', 20;
my ($text, $end) = ('', time + 120);
my $restarted = 0;
while (time < $end) {
    for my $n (1 .. 3) {
        next unless -e "$dir/restart.tomcat$n";
        $site->tomcat($n)->terminate->launch->wait_ready;
        $restarted++;
        unlink "$dir/restart.tomcat$n";
    }
    vec(my $in = '', fileno $out, 1) = 1;
    if (select $in, undef, undef, 0.1) {
        sysread($out, $text, 4096, length $text) or last;
    }
}
close $out;
is $?, 0, 'bin/rolling-restart ends well' or diag $text;
is $restarted, 3, 'three restarts';
like $text, qr{1/3 tomcat1 .*: draining}, 'it says what it does';
like $text, qr/tomcat2: 0 sessions left/, 'and how many are left' or diag $text;
like $text, qr/done\n\z/, 'to the end';
open my $fh, '>', "$dir/enough"; close $fh;
waitpid $load, 0;
open $fh, '<', "$dir/result" or die "no result: $!";
my ($requests, $failed, $wrong) = split / /, <$fh>;
ok $requests > 100, "under load ($requests requests)";
is $failed, 0, 'no request failed';
is $wrong, 0, 'no update was lost';
is scalar(grep { $_->{outcome} ne 'restored' } @{ $site->status->{journal} }), 0, 'every move was a restore';
