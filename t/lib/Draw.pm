package Draw;
# Random numbers that a seed brings back: a stream of its own for each name, so that one client's choices do not depend
# on how many numbers another one has drawn.
use strict;
use warnings;
use Digest::SHA ();

my $mask = 2 ** 48 - 1;

sub new {
    my ($class, $seed, $name) = @_;
    return bless { state => unpack('Q<', Digest::SHA::sha256("$seed\0$name")) & $mask }, $class;
}

# 0 <= x < 1: 48 bits of a linear congruence, as drand48 has it
sub unit {
    my $self = shift;
    { use integer; $self->{state} = ($self->{state} * 25214903917 + 11) & $mask }
    return $self->{state} / 2 ** 48;
}
sub between { my ($self, $least, $most) = @_; return $least + ($most - $least) * $self->unit }
sub below   { my ($self, $n) = @_; return int($n * $self->unit) }
sub chance  { my ($self, $share) = @_; return $self->unit < $share }
sub one_of  { my ($self, @list) = @_; return $list[$self->below(scalar @list)] }

# weighted(name => weight, ...)
sub weighted {
    my ($self, @pairs) = @_;
    my $sum = 0;
    $sum += $pairs[2 * $_ + 1] for 0 .. $#pairs / 2;
    my $at = $self->unit * $sum;
    while (@pairs > 2) {
        my ($name, $weight) = splice @pairs, 0, 2;
        return $name if ($at -= $weight) < 0;
    }
    return $pairs[0];
}

1;
