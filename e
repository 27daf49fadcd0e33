nice: ‘ed-interp’: No such file or directory
