# SessionHANative for applications that keep their sessions in memcached: a real PHP with its memcached handler, a real Django,
# values captured from memcached-session-manager, and what connect-memcached stores. The module asks whether the session is there, tells, and
# writes nothing of theirs.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Digest::SHA qw(hmac_sha256_base64);
use MIME::Base64 qw(decode_base64);
use Backend;
use Site;

plan tests => 12 + 3 + 5 + 2 * 6 + 2 + 4 + 8;

my $logs = Apache::Test::vars()->{t_logs};
my %node_port = map { $_ => Site::free_port() } 1, 2;
my %node = map { $_ => Daemon->memcached($node_port{$_}, '-vv') } 1, 2;
my @nodes = map { "127.0.0.1:$node_port{$_}" } 1, 2;

# ---- members ----------------------------------------------------------------------

sub write_file { my ($file, $text) = @_; open my $fh, '>', $file or die "$file: $!"; print $fh $text; close $fh; return $file }
my $php = write_file("$logs/native.$$.php", <<'P');
<?php
session_start();
$_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
header('Content-Type: text/plain');
echo 'member=', getenv('MEMBER'), ' count=', $_SESSION['n'], "\n";
P
my $django = write_file("$logs/native.$$.py", <<'P');
import os, sys
from wsgiref.simple_server import make_server
from django.conf import settings
settings.configure(SECRET_KEY='not one', ROOT_URLCONF=__name__, ALLOWED_HOSTS=['*'], INSTALLED_APPS=['django.contrib.sessions'],
    MIDDLEWARE=['django.contrib.sessions.middleware.SessionMiddleware'], SESSION_ENGINE='django.contrib.sessions.backends.cache',
    CACHES={'default': {'BACKEND': 'django.core.cache.backends.memcached.PyMemcacheCache', 'LOCATION': sys.argv[2]}})
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
def count(request, rest=''):
    request.session['n'] = request.session.get('n', 0) + 1
    return HttpResponse('member=%s count=%d\n' % (os.environ['MEMBER'], request.session['n']), content_type='text/plain')
urlpatterns = [path('', count), path('<path:rest>', count)]
make_server('127.0.0.1', int(sys.argv[1]), get_wsgi_application()).serve_forever()
P
sub fake {
    my ($name, $port) = @_;
    return Backend->start(port => $port, app => sub { select undef, undef, undef, 0.2 if $_[1] =~ /slow/; (200, [], "member=$name\n") });
}
my %start = (
    msm => \&fake, node => \&fake, drain => \&fake, apart => \&fake,
    php => sub { my ($name, $port) = @_; Daemon->start(port => $port, log => "$logs/$name.$$.log", env => { MEMBER => $name },
        cmd => ['php', '-d', 'session.save_handler=memcached', '-d', "session.save_path=$nodes[0]", '-S', "127.0.0.1:$port", $php]) },
    django => sub { my ($name, $port) = @_; Daemon->start(port => $port, log => "$logs/$name.$$.log", env => { MEMBER => $name },
        cmd => ['python3', $django, $port, $nodes[0]]) },
);
my %app = (
    msm    => ['msm', 'JSESSIONID', ''],
    drain  => ['"mine:%{issued}"', 'JSESSIONID', 'SessionHADrain move'],
    apart  => ['"mine:%{issued}"', 'JSESSIONID', 'SessionHARouteCookie HOME'],
    node   => ['connect-memcached', 'ROUTEID', 'SessionHAId cookie=connect.sid'],
    php    => ['php-memcached', 'ROUTEID', 'SessionHAId cookie=PHPSESSID'],
    django => ['django', 'ROUTEID', "SessionHAId cookie=sessionid\nSessionHAStore " . join ' ', map { "libmemcached://$_" } @nodes],
);
my (%member, $conf);
for my $name (sort keys %app) {
    my ($preset, $sticky, $more) = @{ $app{$name} };
    my $members = '';
    for my $n (1 .. 3) {
        my $port = Site::free_port();
        $member{$name}{$n} = $start{$name}->("$name$n", $port);
        $members .= "BalancerMember http://127.0.0.1:$port route=$name$n retry=3600" . ("$name$n" eq 'drain1' ? ' status=+N' : '') . "\n";
    }
    $conf .= <<C;
<Proxy "balancer://$name">
$members
ProxySet stickysession=$sticky
SessionHA On
SessionHABackup native
SessionHANative $preset
$more
</Proxy>
ProxyPass "/$name/" "balancer://$name/"
C
}
my $site = bless { port => Site::free_port(), dir => $logs, secret => write_file("$logs/native.$$.secret", join '', map { int rand 10 } 1 .. 40),
    node_port => \%node_port, node => \%node, tomcats => [] }, 'Site';
chmod 0600, $site->{secret};
$conf = $site->store_line . "\nSessionHASecret file:$site->{secret}\nSessionHAStoreTimeout " . ($ENV{VALGRIND} ? '5000ms' : '3000ms')
    . "\nSessionHAOnMissing 503\n<Location \"/session-ha-status\">\nSetHandler session-ha-status\n</Location>\n$conf";
$site->{httpd} = Daemon->httpd($site->{port}, $conf);

sub told { my $e = $site->status->{journal}[0]; return $e ? join ' ', map { $e->{$_} } qw(from outcome) : '' }
sub answer { my $r = shift; return join ' ', $r->{status}, Site::member_of($r) // '-', Site::count_of($r) // () }
sub asked { my $key = shift; return scalar grep { /^get \Q$key\E\z/ } $site->node_log(1) }
sub is_asked { my ($key, $n, $what) = @_; is asked($key), $n, $what or diag join "\n", grep { !/ ha:/ } $site->node_log(1) }

# ---- memcached-session-manager: keys and values as captured --------------------------------

my $session = decode_base64(join '', qw(
    AAIAXwAAAaH7Lu+jAAABofsu760AAAcIMDEAAAGh+y7vrgAAAaH7Lu+uACtBRkIwNTI4RDczQTBEN0NEOUZBMTc1NTE0OTIzMDEwMy1uMi50b21jYXQxAA
    AAAAAAAACs7QAFc3IAEWphdmEubGFuZy5JbnRlZ2VyEuKgpPeBhzgCAAFJAAV2YWx1ZXhyABBqYXZhLmxhbmcuTnVtYmVyhqyVHQuU4IsCAAB4cAAAAAF0
    AARjYXJ0c3IAE2phdmEudXRpbC5BcnJheUxpc3R4gdIdmcdhnQMAAUkABHNpemV4cAAAAAN3BAAAAANzcgAJZGVtby5JdGVtAAAAAAAAAAECAANKAAJhdE
    kAA3F0eUwABG5hbWV0ABJMamF2YS9sYW5nL1N0cmluZzt4cAAAAaH7Lu+jAAAAAXQABWFwcGxlc3EAfgAGAAABofsu76sAAAABdAAEcGVhcnNxAH4ABgAA
    AaH7Lu+uAAAAAXQABHBsdW14));
my $backup = decode_base64(join '', qw(
    AAIAXwAAAaH7LzG0AAABofsvMbQAAAcIMTEAAAGh+y8xugAAAaH7LzG/ACsyQUJCRDI4N0U5NDM4NUMwNjdBQzg3M0JBM0MwMDg5OS1uMi50b21jYXQxAA
    AAAAAAAACs7QAFc3IAEWphdmEubGFuZy5JbnRlZ2VyEuKgpPeBhzgCAAFJAAV2YWx1ZXhyABBqYXZhLmxhbmcuTnVtYmVyhqyVHQuU4IsCAAB4cAAAAAF0
    AARjYXJ0c3IAE2phdmEudXRpbC5BcnJheUxpc3R4gdIdmcdhnQMAAUkABHNpemV4cAAAAAF3BAAAAAFzcgAJZGVtby5JdGVtAAAAAAAAAAECAANKAAJhdE
    kAA3F0eUwABG5hbWV0ABJMamF2YS9sYW5nL1N0cmluZzt4cAAAAaH7LzG6AAAAAXQABWFwcGxleA==));
my $hex = sub { join '', map { sprintf '%02X', int rand 256 } 1 .. 16 };
{
    my ($sticky, $other, $renamed, $pinged, $nobody) = map { $hex->() . '-n2' } 1 .. 5;
    $sticky = 'AFB0528D73A0D7CD9FA1755149230103-n2';
    $site->node_value(1, "$_.msm1", $session) for $sticky, $renamed;
    $site->node_value(1, "bak:$other.msm1", $backup);
    $site->node_value(1, "$pinged.msm1", "\1");
    is answer($site->get('/msm/', cookie => "JSESSIONID=$sticky.msm1")), '200 msm1', 'memcached-session-manager: at home';
    is_asked "$sticky.msm1", 0, 'nothing is asked for while the member is well';
    $member{msm}{1}->kill9;
    my @r = $site->parallel(20, '/msm/slow', cookie => "JSESSIONID=$sticky.msm1");
    my %by = map { answer($_) => 1 } @r;
    like join(' | ', sort keys %by), qr/\A200 msm[23]\z/, 'twenty at once go to one other member';
    is told(), 'msm1 native', 'its session is there';
    is_asked "$sticky.msm1", 1, 'and was asked for once, under the id as issued';
    is_asked "bak:$sticky.msm1", 0, 'and under no other name';
    is $site->node_value(1, "$sticky.msm1"), $session, 'it is as it was';

    like answer($site->get('/msm/', cookie => "JSESSIONID=$other.msm1")), qr/^200 msm[23]/, 'the second copy of a non-sticky one';
    is told(), 'msm1 native', 'will do';
    is answer($site->get('/msm/', cookie => "JSESSIONID=$nobody.msm1")), '503 -', 'an id that nobody has';
    is told(), 'msm1 missing', 'is missing';
    is answer($site->get('/msm/', cookie => "JSESSIONID=$pinged.msm1")), '503 -', "one byte is no session, but the member's ping";

    # Another httpd moves the session, and its member gives it a new name. Whoever comes here with the old one goes there.
    my $port = Site::free_port();
    my $second = Daemon->httpd($port, $conf);
    my $there = answer($site->get('/msm/', cookie => "JSESSIONID=$renamed.msm1", port => $port));
    like $there, qr/^200 msm[23]/, 'moved by another httpd';
    $site->ask_node(1, "delete $renamed.msm1\r\n", qr/^DELETED\r\n/);
    $site->node_value(1, "$renamed." . (split ' ', $there)[1], $session);
    is answer($site->get('/msm/', cookie => "JSESSIONID=$renamed.msm1")), $there, 'the old name';
    is told(), 'msm1 native', 'it is found under the new one';
    $second->end;
}

# ---- connect-memcached: the key is what express-session has signed ----------------------------

{
    my $cookie = sub {
        my $sid = shift;
        my $value = "s:$sid." . hmac_sha256_base64($sid, 'keyboard cat');
        return 'ROUTEID=.node1; connect.sid=' . $value =~ s/([:\/+])/sprintf '%%%02X', ord $1/ger;
    };
    my ($sid, $nobody) = ('q4oHP8_-mIhpvh2xuQ9gTKLkMkWRm8sC', 'AAAHP8_-mIhpvh2xuQ9gTKLkMkWRm8sC');
    $site->node_value(1, $sid, '{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"n":3}');
    $member{node}{1}->kill9;
    like answer($site->get('/node/', cookie => $cookie->($sid))), qr/^200 node[23]/, 'connect-memcached: moved';
    is told(), 'node1 native', 'its session is there';
    is_asked $sid, 1, 'under the id without the signature';
    is answer($site->get('/node/', cookie => $cookie->($nobody))), '503 -', 'one that nobody has';
    is told(), 'node1 missing', 'is missing';
}

# ---- real ones ------------------------------------------------------------------------------------

for my $real (['php', 'PHPSESSID', 'memc.sess.key.'], ['django', 'sessionid', ':1:django.contrib.sessions.cache']) {
    my ($name, $cookie, $prefix) = @$real;
    my $r = $site->get("/$name/", cookie => "ROUTEID=.${name}1");
    my ($id) = join("\n", @{ $r->{head}{'set-cookie'} || [] }) =~ /^$cookie=([^;]+)/m;
    my $mine = "ROUTEID=.${name}1; $cookie=$id";
    is answer($site->get("/$name/", cookie => $mine)), "200 ${name}1 2", "$name: two requests";
    ok defined $site->node_value(1, "$prefix$id"), 'kept in memcached';
    $member{$name}{1}->kill9;
    like answer($site->get("/$name/", cookie => $mine)), qr/^200 ${name}[23] 3\z/, 'another member has it';
    is told(), "${name}1 native", 'as the module tells';
    is answer($site->get("/$name/", cookie => "ROUTEID=.${name}1; $cookie=" . 'a' x length $id)), '503 -', 'one that nobody has';
    is told(), "${name}1 missing", 'is missing';
}

# ---- the route in a cookie of httpd's own: the id as issued has none ------------------------------------

{
    my $id = $hex->();
    $site->node_value(1, "mine:$id", 'x');
    $member{apart}{1}->kill9;
    like answer($site->get('/apart/', cookie => "JSESSIONID=$id; HOME=.apart1")), qr/^200 apart[23]/, 'SessionHARouteCookie: moved';
    is told(), 'apart1 native', 'and found';
}

# ---- a member that is drained: a session moves if the others will find it ------------------------------

{
    my ($kept, $lost) = map { $hex->() } 1, 2;
    $site->node_value(1, "mine:$kept.drain1", 'x');
    my $r;
    for (1 .. 300) {            # for some seconds it is only counted who is in
        $r = $site->get('/drain/', cookie => "JSESSIONID=$kept.drain1");
        last if Site::member_of($r) ne 'drain1';
        select undef, undef, undef, 0.05;
    }
    like answer($r), qr/^200 drain[23]/, 'drained: a session that is where the template says moves';
    is told(), 'drain1 native', 'as is told';
    is answer($site->get('/drain/', cookie => "JSESSIONID=$lost.drain1")), '200 drain1', 'one that is not there stays';
    is told(), 'drain1 native', 'and nothing is told of it';
}

# ---- nodes that do not answer ---------------------------------------------------------------------

my ($one, $two) = map { $hex->() . '-n1' } 1, 2;
$site->node_value(1, "$_.msm1", $session) for $one, $two;
$node{2}->kill9;
like answer($site->get('/msm/', cookie => "JSESSIONID=$one.msm1")), qr/^200 msm[23]/, 'one node of two is dead: the other has the session';
is told(), 'msm1 native', 'and says so';
like answer($site->get('/msm/', cookie => 'JSESSIONID=' . $hex->() . '-n1.msm1')), qr/^200 msm[23]/, 'one that the other has not: it may be on the dead one';
is told(), 'msm1 unavailable', 'so nobody knows, and it goes on';
$node{1}->stop;
like answer($site->get('/msm/', cookie => "JSESSIONID=$two.msm1")), qr/^200 msm[23]/, 'no node answers: it goes on';
is told(), 'msm1 unavailable', 'unavailable';
$node{1}->cont;
unlike $site->error_log, qr/AFB0528D|q4oHP8_-/, 'no id in the log';
is $site->get('/session-ha-status')->{body} =~ /AFB0528D|q4oHP8_-/ ? 'an id' : 'no id', 'no id', 'nor on the page';
$site->{httpd}->end;
