# P7, where no Tomcat is needed: each case with SessionHA Off and On, and what is observed must be the same.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Time::HiRes qw(sleep);
use Backend;
use Site;

my $dir = Apache::Test::vars('t_logs') . "/stock-$$";
mkdir $dir or die "$dir: $!";
open my $fh, '>', "$dir/secret" or die $!;
print $fh 'a secret of thirty-two bytes or so';
close $fh;
chmod 0600, "$dir/secret";

my %port = map { $_ => Site::free_port() } qw(a b c);
my %member;
sub app {
    my $name = shift;
    return sub {
        my ($method, $uri, $head, $body) = @_;
        sleep 2 if $uri =~ /slow/;
        return (500, ['Set-Cookie: z=1'], 'theirs') if $uri =~ /bad/;
        return (200, [], "member=$name " . length($body // '') . "\n");
    };
}
sub alive { $member{$_} ||= Backend->start(port => $port{$_}, app => app($_)) for sort keys %port }
sub killed { (delete $member{$_})->kill9 for @_; return }
END { my $s = $?; $_->kill9 for grep { $_ } values %member; $? = $s }

my ($site, $n) = (undef, 0);
sub cookie { "JSESSIONID=ID$n.$_[0]" }
sub who { my $r = shift; return $r->{status} == 200 ? Site::member_of($r) // '-' : $r->{status} }
sub get { my ($route, %o) = @_; return $site->get($o{path} // '/app/x', $route ? (cookie => cookie($route)) : (), %o) }
sub at { return join ' ', map { who(get(@_)) } 1 .. 3 }
# who was asked, without a name that depends on the turn
sub not_at { my ($route, @rest) = @_; return at($route, @rest) =~ /\b\Q$route\E\b|\d/ ? 'wrong' : 'elsewhere' }
sub env { my $r = get(@_); return ($r->{head}{'x-env'}[0] // '-') =~ s/:\d+//gr }

my $page = <<'C';
<Directory "DIR">
    Options +Includes
    Require all granted
    AddOutputFilter INCLUDES .shtml
</Directory>
Alias "/pages" "DIR"
C
$page =~ s/DIR/$dir/g;
open $fh, '>', "$dir/page.shtml" or die $!;
print $fh '<p><!--#include virtual="/app/one"-->, <!--#include virtual="/app/two"--></p>';
close $fh;

# name, what is seen, steps; of the members, of the balancer, of the server
my @cases = (
    ['its environment', 'balancer://t JSESSIONID b b -; balancer://t jsessionid b b -; balancer://t JSESSIONID gone x 1', sub {
        my @e = (env('b'), env('', path => '/app/x;jsessionid=U.b'), env('gone'));
        join '; ', map { s/\(null\)/-/gr } @e[0, 1], $e[2] =~ s/gone \w/gone x/r }],
    ['its environment when a member is gone', 'balancer://t JSESSIONID b x 1' . '; balancer://t JSESSIONID b x 1', sub {
        killed('b'); join '; ', map { env('b') =~ s/ b [ac]/ b x/r } 1 .. 2 }],
    ['redirect=, and that one is dead, too', 'c c c', sub { killed('a', 'b'); get('a'); at('a') }, { a => 'redirect=b' }],
    ['redirect= of a disabled member', 'b b b', sub { at('a') }, { a => 'redirect=b status=+D' }],
    ['redirect= does nothing while its member lives', 'a a a', sub { at('a') }, { a => 'redirect=b' }],
    ['nofailover and redirect=', 'b b b', sub { killed('a'); at('a') }, { a => 'redirect=b' }, 'nofailover=On'],
    ['nofailover, disabled', '503 503 503', sub { at('a') }, { a => 'status=+D' }, 'nofailover=On'],
    ['stopped', 'elsewhere', sub { not_at('a') }, { a => 'status=+S' }],
    ['errors ignored (+I)', '503 503 503', sub { killed('a'); at('a') }, { a => 'status=+I' }],
    ['the next lbset', 'c c c', sub { killed('a', 'b'); at('a') }, { c => 'lbset=1' }],
    ['nobody left', '503 503 503', sub { killed(qw(a b c)); at('a') }],
    ['nobody left, forcerecovery=Off', '503 503 503', sub { killed(qw(a b c)); at('a'); alive(); at('a') }, {}, 'forcerecovery=Off'],
    ['a member without a route', 'a b c', sub { join ' ', sort keys %{{ map { who(get('')) => 1 } 1 .. 9 }} }, { c => 'no route' }],
    ['failontimeout', 'slow 502 elsewhere', sub { 'slow ' . who(get('a', path => '/app/slow')) . ' ' . not_at('a') }, { a => 'timeout=1' }, 'failontimeout=On'],
    ['hcheck', 'elsewhere', sub {
        sleep 1.5; killed('a');
        for (1 .. 100) { last if $site->get('/balancer-manager')->{body} =~ /HcFl/; sleep 0.1 }
        not_at('a') }, { map { $_ => 'hcmethod=TCP hcinterval=1 hcfails=1' } qw(a b c) }],
    ['SSI', '<p>b, b</p>', sub { get('b', path => '/pages/page.shtml')->{body} =~ s/member=(\w) 0\n/$1/gr }, {}, '', $page],
    ['SSI, the member is gone', '<p>x, x</p>', sub { killed('b'); get('b', path => '/pages/page.shtml')->{body} =~ s/member=[ac] 0\n/x/gr }, {}, '', $page],
    ['HTTP/2', 'member=c 0', sub {
        my $url = "http://127.0.0.1:$site->{port}/app/x";
        qx(curl -s -m 20 --http2-prior-knowledge -b @{[ cookie('c') ]} $url) =~ s/\n//r }, {}, '', 'Protocols h2c http/1.1'],
    ['ProxyErrorOverride', '500 ours -', sub {
        my $r = get('a', path => '/app/bad'); "$r->{status} $r->{body} " . ($r->{head}{'set-cookie'} ? 'cookie' : '-') }, {}, "\nProxyErrorOverride On",
        'ErrorDocument 500 "ours"'],
    ['a POST to a member that is gone', 'elsewhere', sub { killed('a'); not_at('a', body => 'x' x 5000) }],
);

plan tests => 2 * @cases;
for my $case (@cases) {
    my ($name, $expect, $steps, $of, $set, $more) = @$case;
    for my $on ('Off', 'On') {
        alive();
        $n++;
        my $front = Site::free_port();
        my $members = join '', map {
            my $says = $of->{$_} // '';
            "  BalancerMember http://127.0.0.1:$port{$_} retry=60 " . ($says eq 'no route' ? '' : "route=$_ $says") . "\n" } qw(a b c);
        my $httpd = Daemon->httpd($front, <<C);
SessionHAStore lmdb:$dir/store
SessionHASecret file:$dir/secret
SessionHAStoreTimeout @{[ $ENV{VALGRIND} ? '5000ms' : '1000ms' ]}
Header always set X-Env "%{BALANCER_NAME}e %{BALANCER_SESSION_STICKY}e %{BALANCER_SESSION_ROUTE}e %{BALANCER_WORKER_ROUTE}e %{BALANCER_ROUTE_CHANGED}e"
<Proxy "balancer://t">
$members  ProxySet stickysession=JSESSIONID|jsessionid @{[ $set // '' ]}
  SessionHA $on
</Proxy>
ProxyPass "/app/" "balancer://t/"
<Location "/balancer-manager">
  SetHandler balancer-manager
</Location>
@{[ $more // '' ]}
C
        $site = bless { port => $front }, 'Site';
        my $seen = eval { $steps->() } // $@;
        is $seen =~ s/\(null\)/-/gr, $expect, $on eq 'Off' ? "stock: $name" : 'the same with SessionHA On';
        $httpd->end;
    }
}
