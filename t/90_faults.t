# The randomised fault test (doc/faults.md): clients count in their sessions while a seed draws what goes wrong, and a
# checker proves the promises on the record.
#   HA_FAULT_SEED=N         the same again; drawn and printed otherwise
#   HA_FAULT_SECONDS=N      how long (40)
#   HA_FAULT_HTTPDS=1|2     httpds before the same members and store (2)
#   HA_FAULT_STRICT=1       a GET that fails is a failure too
#   HA_FAULT_ONLY=C,C       only faults of these classes: member, node, link, storelink, httpd, drain (all)
use strict;
use warnings;
use Hosts;
use Apache::Test qw(-withtestmore);
use Checker;
use Faults;

plan tests => 8;

my $seed = $ENV{HA_FAULT_SEED} || 1 + time % 1_000_000;
my $seconds = $ENV{HA_FAULT_SECONDS} || 40;
my $httpds = $ENV{HA_FAULT_HTTPDS} || 2;
diag "HA_FAULT_SEED=$seed HA_FAULT_HTTPDS=$httpds HA_FAULT_SECONDS=$seconds";

my $run = Faults->new(seed => $seed, seconds => $seconds, httpds => $httpds, only => $ENV{HA_FAULT_ONLY}, say => sub { diag $_[0] });
my $verdict = $run->run;
my ($counts, %by) = ($verdict->{counts});
push @{ $by{ $_->{promise} } }, $_ for @{ $verdict->{violations} };

diag sprintf '%d requests of %d sessions, %d answered, %d repeated, %d gaps, %d moves in %d s; faults: %s', @$counts{qw(requests sessions answered)},
    $counts->{repeated} // 0, $counts->{gaps} // 0, @$counts{qw(moves seconds)}, join ', ', map { "$_ $counts->{faults}{$_}" } sort keys %{ $counts->{faults} };
for my $how (sort keys %{ $counts->{failed} }) {
    diag "failed: $how: ", join ', ', map { "$_ $counts->{failed}{$how}{$_}" } sort keys %{ $counts->{failed}{$how} };
}

sub told {
    my ($list, $name) = @_;
    ok !@$list, $name and return;
    diag "seed $seed, ", scalar @$list, ' of them; the record: ', $run->file;
    for my $v (@$list[0 .. ($#$list > 2 ? 2 : $#$list)]) {
        diag "$v->{promise} session $v->{s}: $v->{text}";
        diag "    $_" for Checker::excerpt($run->history, $v, 25);
    }
}

cmp_ok $counts->{requests}, '>', 10 * $seconds, 'there was load';
told($by{whole} || [], 'all became whole again after each fault');
told($by{P1} || [], 'P1: one owner');
told($by{P2} || [], 'P2: no stale answer');
told($by{P3} || [], 'P3: what was acknowledged is kept');
told($by{P4} || [], 'P4: no request failed where no member did');
told($by{P5} || [], 'P5: nothing with side effects ran twice');
{
    if (!$ENV{HA_FAULT_STRICT}) {
        diag scalar @{ $verdict->{strict} }, ' GETs failed while no httpd was restarted';
        diag "    $_->{text}" for @{ $verdict->{strict} };
    }
    told($ENV{HA_FAULT_STRICT} ? $verdict->{strict} : [], 'no GET failed');
}
