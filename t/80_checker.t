# The checker of the randomised fault test on histories made by hand: it accepts good ones, and finds what is wrong in
# each bad one, and nothing else. No server is needed.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Checker;
use Draw;

# ask(rid, 'GET' or 'POST', sent, done, value, member): an answer and its run; without a value: 502
sub ask {
    my ($rid, $method, $sent, $done, $value, $member, %more) = @_;
    my $r = { e => 'request', rid => $rid, s => 's', method => $method, how => 'close', httpd => 1, sent => $sent, done => $done,
        defined $value ? (status => 200, value => $value, member => $member, id => 'aa') : (status => 502, why => 'x'), %more };
    return ($r, defined $value ? ran($rid, $value, $member, $sent) : ());
}
sub ran   { my ($rid, $value, $member, $at) = @_; return { e => 'ran', rid => $rid, value => $value, member => $member, at => $at } }
sub moved { my ($epoch, $from, $to, $at, %more) = @_; return { e => 'move', s => 's', httpd => 1, epoch => $epoch, from => $from, to => $to, cause => 'died', outcome => 'restored', at => $at, %more } }
sub fault { my ($kind, $what, $begin, $end, %more) = @_; return { e => 'fault', n => 1, kind => $kind, what => $what, begin => $begin, end => $end, %more } }

my @good = (
    'counts up at one member' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => POST => 3, 4, 2, 'A'), ask(c => GET => 5, 6, 3, 'A')],
    'two at once, in either order' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 9, 3, 'A'), ask(c => POST => 4, 5, 2, 'A')],
    'moves when its member dies' => [ask(a => GET => 1, 2, 1, 'A'), fault('member.kill', 'member1', 3, 9), moved(2, 'A', 'B', 4), ask(b => GET => 3, 5, 2, 'B')],
    'moves, and back' => [ask(a => GET => 1, 2, 1, 'A'), moved(2, 'A', 'B', 4), ask(b => GET => 3, 5, 2, 'B'), moved(3, 'B', 'A', 6), ask(c => GET => 5.5, 7, 3, 'A')],
    'the line of the log comes after the answer' => [ask(a => GET => 1, 2, 1, 'A'), moved(2, 'A', 'B', 5.5), ask(b => GET => 3, 5, 2, 'B')],
    'moved twice before anybody is answered' => [ask(a => GET => 1, 2, 1, 'A'), moved(2, 'A', 'B', 3), moved(3, 'B', 'C', 4), ask(b => GET => 2.5, 5, 2, 'C')],
    'an httpd that was killed could not tell' => [ask(a => GET => 1, 2, 1, 'A'), fault('httpd.kill', 'httpd1', 2, 3, httpd => 1), ask(b => GET => 4, 5, 2, 'B')],
    'nor one that was killed later, under the request that moved it' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 20, undef, undef, status => 0), ran(b => 2, 'B', 3),
        ask(c => GET => 4, 5, 3, 'B', httpd => 2), fault('httpd.kill', 'httpd1', 20, 21, httpd => 1)],
    'a request that moved it on before it ended tells the last move only' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 4, 2, 'B', httpd => 2), moved(3, 'B', 'C', 6, began => 2.5),
        ask(c => GET => 2.4, 6, 3, 'C')],
    'the request that moved it ends much later' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 20, 2, 'B'), ask(c => GET => 4, 5, 3, 'B'), moved(2, 'A', 'B', 20)],
    'a gap that a failed POST explains' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => POST => 3, 4), ran(b => 2, 'A', 3), fault('member.kill', 'member1', 3, 4), ask(c => GET => 5, 6, 3, 'A')],
    'a GET that was repeated after it had counted' => [ask(a => GET => 1, 2, 1, 'A'), ran(b => 2, 'A', 3), moved(2, 'A', 'B', 4), ask(b => GET => 3, 5, 3, 'B')],
    'a POST fails with its member' => [ask(a => GET => 1, 2, 1, 'A'), fault('member.hang', 'member1', 3, 9), ask(b => POST => 3, 4)],
    'a GET fails where two members fail' => [fault('member.hang', 'member1', 3, 9), fault('link.refused', 'member2', 3, 9, httpd => 1), ask(b => GET => 3, 4)],
    'a GET fails with its httpd' => [fault('httpd.kill', 'httpd1', 3, 9), ask(b => GET => 3, 4, undef, undef, status => 0)],
    'a member that was only slow, taken for hung' => [{ e => 'condemned', httpd => 1, what => 'x', at => 2, until => 3 }, ask(b => POST => 2, 3)],
);

my @bad = (
    # what goes back has been answered before, by somebody else: this is also P1
    'P2 P1 P1' => 'a stale member answers' => [ask(a => GET => 1, 2, 1, 'A'), moved(2, 'A', 'B', 3), ask(b => GET => 3, 4, 2, 'B'), ask(c => GET => 4.5, 4.6, 3, 'B'),
        moved(3, 'B', 'A', 5), ask(d => GET => 5, 6, 2, 'A')],
    'P3 P1' => 'an acknowledged update is gone' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 4, 2, 'A'), ask(b2 => GET => 4.1, 4.2, 3, 'A'), moved(2, 'A', 'B', 5), ask(c => GET => 5, 6, 3, 'B')],
    # run again where the session went, from a backup that is older than the last answer
    'P3 P1' => 'a repeated GET meets an old backup' => [ask(a => GET => 1, 2, 1, 'A'), ran(b => 2, 'A', 3), ask(c => GET => 3.1, 3.2, 3, 'A'), moved(2, 'A', 'B', 4),
        (ask(b => GET => 3, 5, 2, 'B'))[0], ran(b => 2, 'B', 4)],
    P3 => 'the session is another one' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 4, 2, 'A', id => 'bb')],
    P1 => 'a value at two members at once' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 6, 2, 'A'), moved(2, 'A', 'B', 4), ask(c => GET => 3, 6, 2, 'B')],
    P1 => 'another member, and nobody says why' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 4, 2, 'B')],
    P1 => 'A, B and A again on one move' => [ask(a => GET => 1, 2, 1, 'A'), moved(2, 'A', 'B', 3), ask(b => GET => 2.5, 4, 2, 'B'), ask(c => GET => 5, 6, 3, 'A')],
    P1 => 'a move long before it came to the member' => [moved(2, 'A', 'B', 0.1), ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 4, 2, 'B')],
    P1 => 'a move that was told before is no excuse' => [ask(a => GET => 1, 2, 1, 'A'), moved(2, 'A', 'C', 0.5, began => 0.4), moved(3, 'C', 'A', 6, began => 2.5), ask(b => GET => 3, 4, 2, 'B', httpd => 2)],
    P1 => 'a graceful restart is no excuse' => [ask(a => GET => 1, 2, 1, 'A'), fault('httpd.graceful', 'httpd1', 2, 3), ask(b => GET => 4, 5, 2, 'B')],
    P1 => 'two owners in one epoch' => [ask(a => GET => 1, 2, 1, 'A'), moved(2, 'A', 'B', 3), moved(2, 'A', 'C', 3, httpd => 2), ask(b => GET => 2.5, 4, 2, 'B')],
    P4 => 'a request fails beside a node' => [fault('node.hang', 'node1', 1, 9), ask(a => GET => 3, 4)],
    P4 => 'a POST too' => [fault('node.kill', 'node1', 1, 9), ask(a => POST => 3, 4)],
    P4 => 'beside the way to a node' => [fault('storelink.silent', 'node1', 1, 9, httpd => 1), ask(a => GET => 3, 4)],
    P4 => 'beside a member that is drained' => [fault('drain.member', 'member1', 1, 9), ask(a => GET => 3, 4)],
    P4 => 'beside nothing at all' => [fault('member.kill', 'member1', 1, 2), ask(a => POST => 30, 40)],
    P5 => 'a POST runs twice' => [ask(a => GET => 1, 2, 1, 'A'), ran(b => 2, 'A', 3), moved(2, 'A', 'B', 4), ask(b => POST => 3, 5, 2, 'B')],
    P5 => 'a failed POST runs twice' => [fault('member.kill', 'member1', 1, 2), ask(b => POST => 1, 5), ran(b => 1, 'A', 1), ran(b => 1, 'B', 2)],
    P5 => 'a GET runs at a third member' => [ran(a => 1, 'A', 1), ran(a => 1, 'B', 1), ask(a => GET => 1, 2, 1, 'C')],
    P5 => 'a gap that nobody explains' => [ask(a => GET => 1, 2, 1, 'A'), ask(b => GET => 3, 4, 3, 'A')],
    P5 => 'the answer of another request' => [ask(a => GET => 1, 2, 1, 'A'), (ask(b => GET => 3, 4, 2, 'A'))[0], ran(c => 2, 'A', 3)],
    strict => 'a GET fails with its member' => [fault('member.kill', 'member1', 1, 9), ask(a => GET => 3, 4)],
    strict => 'with the way to it' => [fault('link.silent', 'member1', 1, 9, httpd => 1), fault('node.kill', 'node1', 1, 9), ask(a => GET => 3, 4)],
);

plan tests => @good / 2 + @bad / 3 + 4;

sub found { my $v = Checker::check($_[0]); return join ' ', map { $_->{promise} } @{ $v->{violations} }, @{ $v->{strict} } }

while (my ($name, $history) = splice @good, 0, 2) { is found($history), '', "good: $name" }
while (my ($promise, $name, $history) = splice @bad, 0, 3) { is found($history), $promise, "$promise: $name" }

# the order of the records does not matter
my @history = (ask(a => GET => 1, 2, 1, 'A'), moved(2, 'A', 'B', 3), ask(b => GET => 2.5, 4, 2, 'B'), ask(c => GET => 5, 6, 3, 'A'));
is found([reverse @history]), found(\@history), 'whatever the order of the records';
my $v = Checker::check(\@history)->{violations}[0];
cmp_ok scalar(Checker::excerpt(\@history, $v, 100)), '>', 4, 'an excerpt shows the records';

# a seed brings the same draws back, each name its own
my @a = map { my $d = Draw->new(42, $_); join ' ', map { $d->below(1000) } 1 .. 50 } qw(a a b);
is $a[0], $a[1], 'the same seed and name, the same draws';
isnt $a[0], $a[2], 'another name, other draws';
