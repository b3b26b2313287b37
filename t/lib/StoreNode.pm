package StoreNode;
# A node of a store of each kind, a real server where there is one, and what can happen to it. For the fault matrix.
#
#   my $node = StoreNode->new('redis', dir => ..., disk => a small file system, name => 'n1');
#   $node->url; $node->start; $node->faults;            # what can be done to it: [names]
#   my $heal = $node->$fault;  $heal->();
#
# kill, term, stop, empty, snapshot and old, full, oom; slow, cut and wrong are done by a relay between it and httpd, or, where
# nothing is between them, in its files. url(1) leads through the relay.
use strict;
use warnings;
use Fcntl qw(:flock);
use File::Copy ();
use File::Path ();
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);
use Daemon;
use Tomcat;

my %class = (memcached => 'StoreNode::Memcached', libmemcached => 'StoreNode::Memcached', redis => 'StoreNode::Redis',
    'dbd:mysql' => 'StoreNode::MariaDB', 'dbd:pgsql' => 'StoreNode::PostgreSQL', 'dbd:sqlite3' => 'StoreNode::SQLite',
    file => 'StoreNode::Files', lmdb => 'StoreNode::LMDB');

sub new {
    my ($class, $kind, %a) = @_;
    my $self = bless { kind => $kind, %a, dir => "$a{dir}/$a{name}" }, $class{$kind} || die "no store '$kind'\n";
    $self->{disk} = "$a{disk}/$a{name}";
    mkdir $_ or die "$_: $!\n" for $self->{dir}, $self->{disk};
    $self->{port} = Tomcat::free_port();
    $self->init;
    $self->start;
    return $self;
}

sub init { }
sub can_do { my ($self, $fault) = @_; return $self->can($fault) }
# why a fault is not among those of this kind
sub cannot {
    my ($self, $fault) = @_;
    return { full => 'it writes no file', oom => 'its memory is the machine\'s' }->{$fault} || 'there is no server';
}
sub run {
    my ($self, @cmd) = @_;
    my $log = "$self->{dir}/commands";
    defined(my $pid = fork) or die "fork: $!";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $log; open STDERR, '>&', \*STDOUT;
        exec @cmd or POSIX::_exit(127);
    }
    waitpid $pid, 0;
    $? == 0 or die "@cmd: status $?: " . Daemon::tail_of($log, 0) . "\n";
}

# ---- a server -----------------------------------------------------------------------

package StoreNode::Server;
our @ISA = 'StoreNode';
use Time::HiRes qw(sleep);

sub at { my ($self, $relayed) = @_; return $relayed ? $self->relay->{port} : $self->{port} }

sub launch {
    my ($self, @cmd) = @_;
    $self->{daemon} = Daemon->start(port => $self->{port}, log => "$self->{dir}/log", cmd => [@cmd, @{ $self->{more} || [] }]);
}
sub pids { return -$_[0]{daemon}->pid }                 # the group
sub signal { my ($self, $signal) = @_; CORE::kill($signal, $self->pids) }

sub kill9 { my $self = shift; $self->signal('KILL'); $self->{daemon}->kill9; $self->{daemon} = undef }
sub kill { my $self = shift; $self->kill9; return sub { $self->start } }
# an orderly end: connections are closed, and nobody listens
sub refused { my $self = shift; $self->{daemon}->signal($self->ends_by); $self->{daemon} = undef; return sub { $self->start } }
sub ends_by { 'TERM' }
sub stop { my $self = shift; $self->signal('STOP'); return sub { $self->signal('CONT') } }
sub end { my $self = shift; $self->{daemon}->kill9 if $self->{daemon}; $self->{relay}{daemon}->kill9 if $self->{relay} }

sub relay {
    my $self = shift;
    $self->{relay} ||= do {
        my $port = Tomcat::free_port();
        my $mode = "$self->{dir}/relay";
        my $relay = { port => $port, mode => $mode };
        set($mode, 'pass');
        (my $program = $INC{'StoreNode.pm'}) =~ s/StoreNode\.pm\z/relay/;
        $relay->{daemon} = Daemon->start(port => $port, log => "$self->{dir}/log", cmd => [$^X, $program, $port, $self->{port}, $mode]);
        $relay;
    };
}
sub set { my ($mode, $what) = @_; open my $fh, '>', "$mode.new" or die "$mode: $!"; print $fh $what; close $fh; rename "$mode.new", $mode }
sub relayed { my ($self, $what) = @_; my $mode = $self->relay->{mode}; set($mode, $what); return sub { set($mode, 'pass') } }
sub slow { $_[0]->relayed('slow') }
sub cut { $_[0]->relayed('cut') }
sub wrong { $_[0]->relayed('wrong') }
sub is_relayed { $_[1] =~ /^(?:slow|cut|wrong)\z/ }

# for protocols of lines
sub ask {
    my ($self, $request, $end) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Proto => 'tcp') or die "$self->{kind}: $!";
    syswrite $s, $request;
    my $raw = '';
    until ($raw =~ $end) { sysread $s, $raw, 65536, length $raw or die "$self->{kind} answers '$raw'" }
    return $raw;
}

package StoreNode::Memcached;
our @ISA = 'StoreNode::Server';

sub url { my $self = shift; "$self->{kind}://127.0.0.1:" . $self->at(@_) }
# small, and without eviction: one that is full says so
sub start {
    my $self = shift;
    $self->launch(Apache::Test::vars()->{memcached}, '-l', '127.0.0.1', '-p', $self->{port}, qw(-U 0 -m 1 -I 512k -M -t 1));
}
sub empty { my $self = shift; $self->kill9; $self->start; return sub { } }
sub contents {
    my $self = shift;
    my $raw = $self->ask("lru_crawler metadump all\r\n", qr/^END\r?\n\z/m);
    my %value;
    for my $key (map { s/%([0-9a-fA-F]{2})/chr hex $1/ger } $raw =~ /^key=(\S+)/mg) {
        my $one = $self->ask("get $key\r\n", qr/^END\r\n\z/m);
        $value{$key} = substr $one, $+[0], $1 if $one =~ /\AVALUE \S+ \d+ (\d+)[^\n]*\n/;
    }
    return \%value;
}
sub snapshot { my $self = shift; $self->{old} = $self->contents }
sub old {
    my $self = shift;
    $self->kill9;
    $self->start;
    $self->ask("set $_ 0 0 " . length($self->{old}{$_}) . "\r\n$self->{old}{$_}\r\n", qr/^STORED\r\n/) for keys %{ $self->{old} };
    return sub { };
}
# values as large as what is there, and somewhat larger, until no more are taken
sub oom {
    my $self = shift;
    my ($has, %size) = $self->contents;
    $size{ length($_) + length $has->{$_} } = 1 for keys %$has;
    my @filler;
    for my $size (map { $_, $_ + 8, $_ + 80 } keys %size) {
        for (1 .. 100_000) {
            push @filler, sprintf 'filler-%d', scalar @filler;
            my $bytes = $size - length $filler[-1];
            last if $self->ask("set $filler[-1] 0 0 $bytes\r\n" . 'x' x $bytes . "\r\n", qr/\n/) !~ /^STORED/;
        }
    }
    return sub { $self->ask("delete $_\r\n", qr/\n/) for @filler };
}

package StoreNode::Redis;
our @ISA = 'StoreNode::Server';

sub url { my $self = shift; 'redis://127.0.0.1:' . $self->at(@_) }
sub start {
    my $self = shift;
    $self->launch(Apache::Test::vars()->{redis}, '--bind', '127.0.0.1', '--port', $self->{port}, '--save', '', '--dir', $self->{disk},
        qw(--maxmemory-policy noeviction));
}
sub say { my ($self, $command) = @_; $self->ask("$command\r\n", qr/\n\z/) =~ /^[+:]/ or die "redis: $command\n" }
sub empty { my $self = shift; unlink "$self->{disk}/dump.rdb"; $self->kill9; $self->start; return sub { } }
sub snapshot { $_[0]->say('SAVE') }
sub old { my $self = shift; $self->kill9; $self->start; return sub { } }
sub oom { my $self = shift; $self->say('CONFIG SET maxmemory 1'); return sub { $self->say('CONFIG SET maxmemory 0') } }
# its log of changes
sub full {
    my ($self, $fill) = @_;
    $self->say('CONFIG SET appendonly yes');
    for (1 .. 100) { last if $self->ask("INFO persistence\r\n", qr/\n\z/) =~ /aof_rewrite_in_progress:0/; sleep 0.05 }
    my $free = $fill->();
    return sub { $free->(); $self->say('CONFIG SET appendonly no') };
}

# ---- databases -----------------------------------------------------------------------

package StoreNode::MariaDB;
our @ISA = 'StoreNode::Server';

sub url { my $self = shift; 'dbd:mysql,host=127.0.0.1,port=' . $self->at(@_) . ',user=root,pass=secret,dbname=test' }
sub init {
    my $self = shift;
    $self->run(qw(mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-name-resolve), "--datadir=$self->{dir}/data");
}
sub start {
    my $self = shift;
    $self->launch(-x '/usr/sbin/mariadbd' ? '/usr/sbin/mariadbd' : 'mariadbd', qw(--no-defaults --bind-address=127.0.0.1 --skip-grant-tables
        --skip-networking=0 --innodb-buffer-pool-size=16M --innodb-log-file-size=8M), "--datadir=$self->{dir}/data", "--socket=$self->{dir}/sock", "--port=$self->{port}");
    $self->make_table unless $self->{made}++;
}
# as conf/session_ha.sql has it, but on the disk that is small
sub make_table {
    $_[0]->sql("CREATE TABLE session_ha (k VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, expires BIGINT NOT NULL,"
        . " value LONGTEXT CHARACTER SET ascii NOT NULL, KEY session_ha_expires (expires)) DATA DIRECTORY='$_[0]{disk}'");
}
sub sql { my ($self, @sql) = @_; $self->run(qw(mariadb --no-defaults -h 127.0.0.1 -P), $self->{port}, qw(-u root test), '-e', join '; ', @sql) }
sub empty { my $self = shift; $self->sql('DROP TABLE session_ha'); return sub { $self->sql('DROP TABLE session_ha'); $self->make_table } }
sub snapshot { $_[0]->sql('DROP TABLE IF EXISTS snapshot', 'CREATE TABLE snapshot AS SELECT * FROM session_ha') }
sub old { $_[0]->sql('DELETE FROM session_ha', 'INSERT INTO session_ha SELECT * FROM snapshot'); return sub { } }
# what room there is left in its own file is filled as well
sub full {
    my ($self, $fill) = @_;
    my $free = $fill->();
    eval { $self->sql(map { "INSERT INTO session_ha VALUES ('filler$_', 0, '" . unpack('H*', pack 'L*', map { rand 2**32 } 1 .. 220) . "')" } 1 .. 400) };
    $@ or die "$self->{kind} is not full\n";
    return sub { $free->(); $self->sql("DELETE FROM session_ha WHERE k LIKE 'filler%'") };
}

package StoreNode::PostgreSQL;
our @ISA = 'StoreNode::MariaDB';

sub url { my $self = shift; 'dbd:pgsql,host=127.0.0.1,port=' . $self->at(@_) . ',user=ha,password=secret,dbname=postgres' }
sub bin { my ($program) = @_; my ($path) = sort { $b cmp $a } glob "/usr/lib/postgresql/*/bin/$program"; $path || $program }
sub init {
    my $self = shift;
    $self->run(bin('initdb'), '-D', "$self->{dir}/data", qw(-U ha -A trust -N --no-locale -E UTF8));
}
sub start {
    my $self = shift;
    unlink "$self->{dir}/data/postmaster.pid";
    $self->launch(bin('postgres'), '-D', "$self->{dir}/data", '-p', $self->{port}, '-h', '127.0.0.1', '-k', $self->{dir}, '-c', 'fsync=off');
    for (1 .. 600) { last if system(bin('pg_isready'), '-q', '-h', '127.0.0.1', '-p', $self->{port}) == 0; sleep 0.05 }
    return if $self->{made}++;
    $self->sql("CREATE TABLESPACE small LOCATION '$self->{disk}'");
    $self->make_table;
}
sub make_table {
    $_[0]->sql('CREATE TABLE session_ha (k VARCHAR(200) NOT NULL PRIMARY KEY, expires BIGINT NOT NULL, value TEXT NOT NULL) TABLESPACE small',
        'CREATE INDEX session_ha_expires ON session_ha (expires)');
}
sub sql { my ($self, @sql) = @_; $self->run(qw(psql -q -X -v ON_ERROR_STOP=1 -h), $self->{dir}, '-p', $self->{port}, '-U', 'ha', map({ ('-c', $_) } @sql), 'postgres') }
sub ends_by { 'INT' }         # by TERM it waits for its clients to go
# each of its processes is a group of its own
sub pids {
    my $self = shift;
    my $pid = $self->{daemon}->pid;
    opendir my $proc, '/proc' or die "/proc: $!";
    return $pid, grep { Daemon::tail_of("/proc/$_/stat", 0) =~ /^\d+ \(.*\) \S+ $pid / } grep { /^\d+\z/ } readdir $proc;
}

# ---- files -------------------------------------------------------------------------------

package StoreNode::Files;
our @ISA = 'StoreNode';
use Fcntl qw(:flock);

sub url { "file:$_[0]{disk}/store" }
sub start { }
sub end { }
sub is_relayed { 0 }
sub records { grep { -f } glob "$_[0]{disk}/store/*/ha*" }
sub slurp { my $file = shift; open my $fh, '<', $file or die "$file: $!"; local $/; return [<$fh> // '', (stat $fh)[9]] }
sub spew { my ($file, $what) = @_; open my $fh, '>', $file or die "$file: $!"; print $fh $what->[0]; close $fh; utime time, $what->[1], $file }
sub empty { my $self = shift; unlink $self->records; return sub { } }
sub snapshot { my $self = shift; $self->{old} = { map { $_ => slurp($_) } $self->records } }
sub old { my $self = shift; unlink $self->records; spew($_, $self->{old}{$_}) for keys %{ $self->{old} }; return sub { } }
sub cut { my $self = shift; for ($self->records) { my $was = slurp($_); $was->[0] = substr $was->[0], 0, length($was->[0]) / 2; spew($_, $was) } return sub { } }
# each record under the next one's name
sub wrong { my $self = shift; my @all = $self->records; my @was = map { slurp($_) } @all; spew($all[$_], $was[$_ - 1]) for 0 .. $#all; return sub { } }
# somebody who is slow has the locks
sub slow {
    my $self = shift;
    my @locks = map { mkdir $_, 0700; open my $fh, '>>', "$_/.lock" or die "$_: $!"; flock $fh, LOCK_EX or die; $fh } map { sprintf '%s/store/%02x', $self->{disk}, $_ } 0 .. 255;
    return sub { undef @locks };
}
sub full { my ($self, $fill) = @_; return $fill->() }

package StoreNode::SQLite;
our @ISA = 'StoreNode';

sub url { "dbd:sqlite3,$_[0]{disk}/sqlite/sessions.db" }
sub start { }
sub end { }
sub is_relayed { 0 }
sub sql { my ($self, @sql) = @_; $self->run('sqlite3', '-bail', '-cmd', '.timeout 5000', "$self->{disk}/sqlite/sessions.db", join '; ', @sql) }
sub empty { my $self = shift; $self->sql('DROP TABLE session_ha'); return sub { } }
sub snapshot { $_[0]->sql('DROP TABLE IF EXISTS snapshot', 'CREATE TABLE snapshot AS SELECT * FROM session_ha') }
sub old { $_[0]->sql('DELETE FROM session_ha', 'INSERT INTO session_ha SELECT * FROM snapshot'); return sub { } }
sub cut { my $self = shift; $self->sql('UPDATE session_ha SET value = substr(value, 1, length(value) / 2)'); return sub { } }
sub wrong {
    my $self = shift;
    $self->sql('CREATE TEMP TABLE t AS SELECT k, value, row_number() OVER (ORDER BY k) AS n FROM session_ha',
        'UPDATE session_ha SET value = (SELECT b.value FROM t AS a, t AS b WHERE a.k = session_ha.k AND b.n = 1 + a.n % (SELECT count(*) FROM t))');
    return sub { };
}
sub slow {
    my $self = shift;
    my $pid = open my $fh, '|-', 'sqlite3', "$self->{disk}/sqlite/sessions.db" or die "sqlite3: $!";
    $fh->autoflush(1);
    print $fh "BEGIN IMMEDIATE;\n.shell touch '$self->{dir}/locked'\n";
    for (1 .. 200) { last if -e "$self->{dir}/locked"; Time::HiRes::sleep(0.02) }
    return sub { print $fh "ROLLBACK;\n"; close $fh; unlink "$self->{dir}/locked" };
}
sub full { my ($self, $fill) = @_; return $fill->() }

package StoreNode::LMDB;
our @ISA = 'StoreNode';

use constant HEAD => "VERSION=3\nformat=bytevalue\ntype=btree\nmapsize=" . (1 + 2) * 1024 * 1024 . "\nHEADER=END\n";

sub url { "lmdb:$_[0]{disk}/store?size=1m" }
sub start { }
sub end { }
sub is_relayed { 0 }
sub alone { 1 }
# what httpd has open it keeps: another file is found at its next start
sub is_replaced { $_[1] =~ /^(?:empty|old)\z/ }
sub empty { my $self = shift; unlink glob "$self->{disk}/store/*.mdb"; return sub { } }
sub snapshot { my $self = shift; File::Path::remove_tree("$self->{dir}/old"); mkdir "$self->{dir}/old"; $self->run('mdb_copy', "$self->{disk}/store", "$self->{dir}/old") }
sub old { my $self = shift; $self->empty; File::Copy::copy("$self->{dir}/old/data.mdb", "$self->{disk}/store/data.mdb") or die "copy: $!"; chmod 0600, "$self->{disk}/store/data.mdb"; return sub { } }
# somebody who is slow has the write lock: a load that waits for its input
sub slow {
    my $self = shift;
    open my $fh, '|-', 'mdb_load', "$self->{disk}/store" or die "mdb_load: $!";
    $fh->autoflush(1);
    print $fh HEAD;
    Time::HiRes::sleep(0.3);
    return sub { print $fh "DATA=END\n"; close $fh };
}
# its size, with what it keeps back for the sweep
sub full {
    my $self = shift;
    open my $fh, '|-', 'mdb_load', "$self->{disk}/store" or die "mdb_load: $!";
    # a page each, which does not expire
    print $fh HEAD, map({ sprintf " %s\n %s\n", unpack('H*', "filler$_"), '0' x 8000 } 1 .. 300), "DATA=END\n";
    close $fh or die "mdb_load: $?\n";
    return sub { $self->empty };
}
sub cannot { my ($self, $fault) = @_; return { cut => 'it checks its pages at the start', wrong => 'it checks its pages at the start' }->{$fault} || StoreNode::cannot(@_) }

1;
