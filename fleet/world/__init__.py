"""A made-up world: the real aggregator and agents, in one thread, over an in-memory broker, on a clock that is made up.

python -m fleet.world --schedules 2000 --seed 1

agenda      made-up time                       laws, calm   what must hold
network     the broker, and what it may do     record       what a disk is known to hold
disk        disks: copied, restored, full      weather      profiles: which misfortunes, how many
process     how a supervised process lives     misfortunes  what each of them does
nodes       the real services as processes     jobs, nets   what the fleet is asked to do
world       one schedule, from a seed          plants       faults to be found
"""
