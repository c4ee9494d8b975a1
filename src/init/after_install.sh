#!/bin/sh
PATH=$PATH:/usr/local/bin:/usr/bin
exec multideployer --config /etc/multideployer/multideployer.yaml
