# P7: what mod_proxy_balancer documents keeps its meaning. Each case runs with the module off and on; what is
# observed (members and statuses) must be the same, and as documented.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Site;

# a session at tomcat$n
sub session_at {
    my ($site, $n) = @_;
    for (1 .. 30) {
        my $r = $site->get('/count');
        return Site::cookie_of($r) if (Site::member_of($r) // '') eq "tomcat$n";
    }
    die "no session at tomcat$n\n";
}
sub at { my $r = shift; $r->{status} == 200 ? Site::member_of($r) : $r->{status} }

my @cases = (
    { name => 'redirect=: its member takes over, not the balancer\'s choice', member => { 1 => 'redirect=tomcat3' },
      expect => 'tomcat3 tomcat3 tomcat3',
      steps => sub { my ($s) = @_;
          my @c = map { session_at($s, 1) } 1 .. 3;
          $s->tomcat(1)->kill9;
          $s->get('/count', cookie => $c[0]);   # meets the error; stock marks the member with it
          map { at($s->get('/count', cookie => $_)) } @c } },
    { name => 'nofailover: 503 rather than another member', proxyset => 'nofailover=On', retry => 'retry=60', expect => '503 503 tomcat2',
      steps => sub { my ($s) = @_;
          my ($c, $d) = (session_at($s, 1), session_at($s, 2));
          $s->tomcat(1)->kill9;
          $s->get('/count', cookie => $c);      # meets the error
          ((map { at($s->get('/count', cookie => $c)) } 1 .. 2), at($s->get('/count', cookie => $d))) } },
    { name => 'lbset: the lowest with a usable member', member => { 2 => 'lbset=1', 3 => 'lbset=0', 1 => 'lbset=0' },
      expect => 'tomcat3 tomcat3 tomcat3 tomcat3',
      steps => sub { my ($s) = @_;
          my @c = map { session_at($s, 1) } 1 .. 4;
          $s->tomcat(1)->kill9;
          map { at($s->get('/count', cookie => $_)) } @c } },
    { name => 'hot standby: only when nobody else is left', member => { 3 => 'status=+H' }, retry => 'retry=60',
      expect => 'tomcat2 tomcat2 tomcat3',
      steps => sub { my ($s) = @_;
          my @c = map { session_at($s, 1) } 1 .. 2;
          $s->tomcat(1)->kill9;
          my @seen = map { at($s->get('/count', cookie => $_)) } @c;
          $s->tomcat(2)->kill9;
          (@seen, at($s->get('/count', cookie => $c[0]))) } },
    { name => 'hot spare: replaces a dead member of its lbset', member => { 3 => 'status=+R' }, retry => 'retry=60',
      expect => 'new: tomcat1 tomcat2; after: tomcat2 tomcat3',
      steps => sub { my ($s) = @_;
          my %new = map { at($s->get('/count')) => 1 } 1 .. 8;
          my @c = map { session_at($s, 1) } 1 .. 3;
          $s->tomcat(1)->kill9;
          $s->get('/count', cookie => $_) for @c;
          my %after = map { at($s->get('/count')) => 1 } 1 .. 8;
          ('new:', join(' ', sort keys %new) . ';', 'after:', sort keys %after) } },
    { name => 'drain: keeps its sessions, gets no new ones', expect => 'tomcat1 tomcat1 new: tomcat2 tomcat3',
      steps => sub { my ($s) = @_;
          my $c = session_at($s, 1);
          $s->manage(1, w_status_N => 1);
          my @seen = map { at($s->get('/count', cookie => $c)) } 1 .. 2;
          my %new = map { at($s->get('/count')) => 1 } 1 .. 9;
          (@seen, 'new:', sort keys %new) } },
    { name => 'disabled: its sessions move at once, and come from nowhere else', expect => 'moved: 1 new: tomcat2 tomcat3',
      steps => sub { my ($s) = @_;
          my $c = session_at($s, 1);
          $s->manage(1, w_status_D => 1);
          my $to = at($s->get('/count', cookie => $c));
          my %new = map { at($s->get('/count')) => 1 } 1 .. 9;
          ('moved:', $to ne 'tomcat1' ? 1 : 0, 'new:', sort keys %new) } },
    { name => 'maxattempts=1: two dead members are one too many for a request', proxyset => 'maxattempts=1', retry => 'retry=60',
      member => { 1 => 'redirect=tomcat2' }, expect => '503 tomcat3',
      steps => sub { my ($s) = @_;
          my $c = session_at($s, 1);
          $s->tomcat($_)->kill9 for 1, 2;
          map { at($s->get('/count', cookie => $c)) } 1 .. 2 } },
    { name => 'lbmethod=byrequests with lbfactor', proxyset => 'lbmethod=byrequests', member => { 1 => 'loadfactor=2' },
      expect => 'tomcat1:6 tomcat2:3 tomcat3:3',
      steps => sub { my ($s) = @_;
          my %n;
          $n{ at($s->get('/count')) }++ for 1 .. 12;
          map { "$_:$n{$_}" } sort keys %n } },
    { name => 'lbmethod=bybusyness', proxyset => 'lbmethod=bybusyness', expect => 'tomcat1 tomcat2 tomcat3',
      steps => sub { my ($s) = @_;
          my %n;
          $n{ at($_) }++ for $s->parallel(9, '/slow?ms=300');
          sort keys %n } },
    { name => 'failonstatus: that answer puts a member into error', proxyset => 'failonstatus=404', retry => 'retry=60',
      expect => '404 moved: 1',
      steps => sub { my ($s) = @_;
          my $c = session_at($s, 1);
          my $bad = at($s->get('/there-is-no-such-page', cookie => $c));
          my $to = at($s->get('/count', cookie => $c));
          ($bad, 'moved:', $to ne 'tomcat1' && $to =~ /^tomcat/ ? 1 : 0) } },
);

plan tests => 2 * @cases;

my $site;
for my $case (@cases) {
    my %seen;
    for my $off (1, 0) {
        $site = Site->new(members => 3, nodes => 1, off => $off, ($site ? (like => $site) : ()),
            map { defined $case->{$_} ? ($_ => $case->{$_}) : () } qw(member proxyset retry));
        $seen{$off} = join ' ', eval { $case->{steps}->($site) };
        diag "$case->{name}: $@" if $@;
    }
    is $seen{1}, $case->{expect}, "stock: $case->{name}";
    is $seen{0}, $case->{expect}, 'the same with SessionHA On';
}
